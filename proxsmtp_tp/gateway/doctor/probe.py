"""The probe: one real mail for each IP version, from a temporary client through the installed rules and the daemon.

`prober` sends it; this module makes findings of its report, hop by hop. A mail that the filter refuses also proves that
interception works.
"""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

from proxsmtp_tp.config.settings import TransparentProxy
from proxsmtp_tp.gateway import check, routing
from proxsmtp_tp.gateway.doctor.findings import Finding, Setup
from proxsmtp_tp.gateway.doctor.prober import CLIENT, HOST_TO_CLIENT, HOST_TO_SERVER, MESSAGE, NARROW_MTU, SERVER
from proxsmtp_tp.gateway.errors import GatewayError
from proxsmtp_tp.gateway.python import module_command

if TYPE_CHECKING:
    from collections.abc import Iterator

# In addition to the daemon's timeouts for the server and the filter: queues, and the start of two processes.
_SPARE_SECONDS = 15.0


def probe(setup: Setup) -> Iterator[Finding]:
    """Send the mails; a finding for each hop. Raises GatewayError if there can be no probe."""
    if not check.examine(setup.plan).in_place:
        yield Finding("probe", False, "there is nothing to prove before the rules are in place")
        return
    seconds = setup.settings.connect_time_out + setup.settings.filter_timeout + _SPARE_SECONDS
    job = {
        "client_link": setup.plan.numbers.probe,
        "server_link": f"pxserve{setup.plan.numbers.slot}",
        "port": setup.plan.options.ports[0],
        "reply_port": setup.settings.out_address.port if _loopback(setup) else 0,  # type: ignore[union-attr]
        "deliver": setup.settings.transparent or _loopback(setup),
        "versions": routing.versions(),
        "seconds": seconds,
    }
    done = subprocess.run(
        module_command("proxsmtp_tp.gateway.doctor.prober"),
        input=json.dumps(job), capture_output=True, text=True, check=False, timeout=8 * seconds,
    )  # fmt: skip
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise GatewayError(f"the probe could not be made: {reason}")
    for version, report in json.loads(done.stdout).items():
        yield from findings(setup, int(version), report)


def _loopback(setup: Setup) -> bool:
    return setup.settings.loopback


def findings(setup: Setup, version: int, report: dict[str, Any]) -> Iterator[Finding]:
    """The findings of one mail. `report` is the prober's, for one IP version."""
    step, client, seen = f"probe, IPv{version}", report["client"], report["server"]
    way = f"client {CLIENT[version]} to {SERVER[version]} port {setup.plan.options.ports[0]}"
    if not client["greeting"]:
        text = f"{way}: no greeting ({client.get('error', 'closed')})"
        hint = ": the rules, the firewall for interface " + setup.plan.numbers.probe + ", or the daemon's listener"
        yield Finding(step, False, text + hint)
        return
    if any(record["peer"] == client["own"] for record in seen):
        yield Finding(step, False, f"{way}: reached the server past the daemon", setup.command("install-rules"))
        return
    yield Finding(step, True, f"{way}: the daemon greets, {client['greeting']}")
    if client["greeting"].startswith(("4", "5")):
        yield Finding(step, False, f"and refuses to relay: {client['greeting']}")
        return
    yield from _beyond(setup, version, step, report)


def _beyond(setup: Setup, version: int, step: str, report: dict[str, Any]) -> Iterator[Finding]:
    """The findings from the daemon to the server."""
    client, seen = report["client"], report["server"]
    if seen:
        source = seen[-1]["peer"][0]
        wanted = _expected_source(setup, version)
        text = f"the daemon calls the server from {source}"
        yield Finding(step, source in wanted, text + ("" if source in wanted else f" instead of {' or '.join(wanted)}"))
    elif setup.settings.transparent or setup.settings.loopback:
        yield Finding(step, False, f"the server was not called: {client.get('error') or client['reply']}")
        return
    if "error" in client:
        yield Finding(step, False, f"the dialogue broke off after {client['step']}: {client['error']}")
        return
    refused = client["reply"][:1] in {"4", "5"}
    if client["step"] != "DATA":
        yield Finding(step, not refused, f"the server behind it answers {client['step']}: {client['reply']}")
        return
    message = next((record["message"] for record in seen if record["message"]), "")
    if refused:
        yield Finding(step, not message, f"the mail was refused, and not delivered: {client['reply']}")
    elif not message:
        yield Finding(step, True, f"the filter discarded the mail: {client['reply']}")
    else:
        change = "unchanged" if message == MESSAGE else "changed by the gateway"
        yield Finding(step, True, f"the mail arrived, {change}: {client['reply']}")
        yield from _narrow_links(version, report)


def _narrow_links(version: int, report: dict[str, Any]) -> Iterator[Finding]:
    """Whether ICMP errors about links with a smaller MTU reach the daemon: a long mail and a long reply must arrive."""
    if "long_mail" not in report:
        return
    step, link = f"path MTU, IPv{version}", f"a link with an MTU of {NARROW_MTU}"
    cause = "what its router reports (ICMP) does not reach the daemon: a firewall drops it here"
    mail, arrived = report["long_mail"], any(record["message"] for record in report["long_seen"])
    if not arrived and "error" in mail:
        text = f"a long mail does not pass {link} towards the server ({mail['error']}): {cause}"
        yield Finding(step, False, text)
    else:
        text = (
            f"a long mail passes {link} towards the server" if arrived else "not proven: the filter kept the long mail"
        )
        yield Finding(step, True, text)
    if report["long_reply"] == "silence":
        yield Finding(step, False, f"a long reply does not pass {link} towards the client: {cause}")
    elif report["long_reply"] == "arrived":
        yield Finding(step, True, f"a long reply passes {link} towards the client")


def _expected_source(setup: Setup, version: int) -> list[str]:
    if setup.settings.transparent_proxy is TransparentProxy.FULL:
        return [CLIENT[version]]
    if setup.settings.loopback:
        return [HOST_TO_CLIENT[version]]
    return [HOST_TO_SERVER[version]]
