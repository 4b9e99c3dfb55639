"""Checks whether other rules (firewalld, ufw, Docker, an administrator's) let intercepted connections in.

The host's rulesets are copied into a replica (see `replica`), and a connection is tested there. If it fails, each
ruleset is tested alone together with ours, to name the one that blocks it.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from email.utils import formatdate
from functools import partial
from ipaddress import ip_interface
from typing import TYPE_CHECKING, Any

from proxsmtp_tp.gateway import check, nftables, routing, survey
from proxsmtp_tp.gateway.doctor.findings import Finding, Setup, unseen
from proxsmtp_tp.gateway.doctor.fixes import all_of, fix
from proxsmtp_tp.gateway.doctor.mail_peers import ORDINARY
from proxsmtp_tp.gateway.doctor.prober import in_parallel
from proxsmtp_tp.gateway.doctor.rules import client_address, server_address
from proxsmtp_tp.gateway.errors import GatewayError
from proxsmtp_tp.gateway.plan import Method, Mode
from proxsmtp_tp.gateway.python import module_command
from proxsmtp_tp.gateway.rulesets import rulesets

if TYPE_CHECKING:
    from collections.abc import Iterator

    from proxsmtp_tp.gateway.doctor.fixes import Fix
    from proxsmtp_tp.gateway.rulesets import Ruleset, Script

_MARGIN = 1.0  # seconds for what is not the replica; tens of thousands of rules may take longer, and are not tried


def look_at_firewall(setup: Setup) -> Iterator[Finding]:
    """Checks that an intercepted connection passes every ruleset of the host."""
    options = setup.plan.options
    if not options.interfaces or not check.examine(setup.plan).in_place:
        return
    try:
        ours, others = rulesets(setup.plan)
    except GatewayError as error:
        yield Finding("firewall", False, f"the rulesets cannot be read: {error}")
        return
    if not others:
        yield Finding("firewall", True, "no other rules exist")
        return
    for found in in_parallel([partial(_listed, setup, name, ours, others) for name in options.interfaces]):
        yield from found


def _listed(setup: Setup, name: str, ours: list[Script], others: list[Ruleset]) -> list[Finding]:
    return list(_of_interface(setup, name, ours, others))


def look_at_rule_paths(setup: Setup) -> Iterator[Finding]:
    """Sends a mail by each client interface and IP version that our rules intercept, in a replica of the host."""
    mail = ORDINARY.format(date=formatdate(localtime=True), id=f"doctor.{time.time_ns():x}")
    ours, others = rulesets(setup.plan)
    scripts = _scripts(setup, ours, others)
    for name in setup.plan.options.interfaces:
        trials = _trials(setup, name)
        try:
            results = try_in_replica(setup, name, scripts, trials, mail) if trials else []
        except (GatewayError, subprocess.SubprocessError) as error:
            yield unseen(f"rule path, {name}", f"not tried: {error}")
            continue
        for trial, result in zip(trials, results, strict=True):
            step = f"rule path, {name}, IPv{6 if ':' in trial[0] else 4}"
            way = f"from {trial[0]} to {trial[2]} port {trial[3]}"
            good = result == "accepted"
            text = f"a mail {way} {'gets to the daemon' if good else f'does not get to the daemon ({result})'}"
            yield Finding(step, good, f"{text}, in a copy of this host")
        if not trials:
            yield unseen(f"rule path, {name}", "it has no address, or no client there is in RuleSource")


def _of_interface(setup: Setup, name: str, ours: list[Script], others: list[Ruleset]) -> Iterator[Finding]:
    trials = _trials(setup, name)
    if not trials:
        return
    step = f"firewall, {name}"
    try:
        results = try_in_replica(setup, name, _scripts(setup, ours, others), trials)
        lost = [trial for trial, result in zip(trials, results, strict=True) if result != "accepted"]
        if not lost:
            yield Finding(step, True, "intercepted connections get in")
            return
        alone = in_parallel(
            [partial(try_in_replica, setup, name, _scripts(setup, ours, [r]), lost[:1]) for r in others]
        )
        blocking = [ruleset for ruleset, found in zip(others, alone, strict=True) if "accepted" not in found]
    except (GatewayError, subprocess.SubprocessError) as error:
        yield unseen(step, f"not tried: {error}")
        return
    versions = " and ".join(sorted({"IPv6" if ":" in trial[0] else "IPv4" for trial in lost}))
    port = setup.plan.options.listen_port if setup.plan.options.mode is Mode.REDIRECT else lost[0][3]
    if not blocking:
        what = results[trials.index(lost[0])]
        text = f"{versions} connections to port {port} are lost ({what}), though not by one ruleset alone"
        yield Finding(step, False, text)
    for ruleset in blocking:
        text = f"{ruleset.name} does not let intercepted {versions} connections in (port {port})"
        yield Finding(step, False, text, _fix_command(setup, name, ruleset, port))


def _scripts(setup: Setup, ours: list[Script], others: list[Ruleset]) -> list[Script]:
    """The scripts in a working order. iptables: ours first, because restoring them deletes other rules. nftables: ours
    last, because their heartbeat soon expires.
    """
    theirs = [ruleset.script for ruleset in others]
    return [*ours, *theirs] if setup.plan.options.method is Method.IPTABLES else [*theirs, *ours]


def _trials(setup: Setup, name: str) -> list[list[Any]]:
    """For each IP version: client, our address on the client's interface, server, port."""
    own = {
        ip_interface(address).version: address.partition("/")[0]
        for interface in survey.interfaces()
        if interface.name == name
        for address in interface.addresses
        if not address.startswith("fe80:")
    }
    found = []
    for version in routing.versions():
        client, server = client_address(setup, name, version), server_address(setup, version)
        if version in own and client and server:
            found.append([client, own[version], server, setup.plan.options.ports[0]])
    return found


def try_in_replica(
    setup: Setup, client: str, scripts: list[Script], trials: list[list[Any]], mail: str = ""
) -> list[str]:
    """Test connections in a replica, or a mail on each; the result of each.

    Raises GatewayError if there can be no replica.
    """
    links = {
        interface.name: [address for address in interface.addresses if not address.startswith("fe80:")]
        for interface in survey.interfaces()
    }
    job = {
        "links": links,
        "client": client,
        "scripts": scripts,
        "port": setup.plan.options.listen_port,
        "transparent": setup.plan.diverts,
        "mail": mail,
        "trials": trials,
    }
    done = subprocess.run(
        ["unshare", "--net", *module_command("proxsmtp_tp.gateway.doctor.replica")],
        input=json.dumps(job), capture_output=True, text=True, check=False, timeout=setup.step_seconds - _MARGIN,
    )  # fmt: skip
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise GatewayError(f"the rulesets cannot be copied ({reason})")
    results: list[str] = json.loads(done.stdout)["results"]
    return results


def _fix_command(setup: Setup, interface: str, ruleset: Ruleset, port: int) -> Fix:
    """The command that lets our connections in, for the tool that made the rules."""
    diverted = setup.plan.options.mode is Mode.TPROXY
    if ruleset.table == "firewalld" and shutil.which("firewall-cmd"):
        return fix("firewalld", interface=interface, port=port)
    # What is diverted keeps its destination: ufw drops that before its own rules (ufw-not-local).
    if not diverted and "ufw-" in ruleset.script[1] and shutil.which("ufw"):
        return fix("ufw", interface=interface, port=port)
    # Diverted connections keep their destination: a packet in the input hook for another host's address is ours.
    if not ruleset.table:
        row = "iptables drops what is diverted" if diverted else "iptables drops"
        return fix(row, tool=ruleset.name, interface=interface, port=port)
    row = "nft drops what is diverted" if diverted else "nft drops"
    return all_of(
        fix(row, chain=[ruleset.family, ruleset.table, name], interface=f'"{interface}"', port=port)
        for name in _input_chains(ruleset)
    )


def _input_chains(ruleset: Ruleset) -> list[str]:
    """The chains of a table for connections to this host: those of the input hook; without any, of prerouting."""
    listed = nftables.run_nft("-j", "list", "table", ruleset.family, ruleset.table)
    chains = [item["chain"] for item in json.loads(listed.stdout)["nftables"] if "chain" in item]
    base = [chain for chain in chains if chain.get("type") == "filter"]
    found = [chain["name"] for chain in base if chain.get("hook") == "input"]
    return found or [chain["name"] for chain in base if chain.get("hook") == "prerouting"]
