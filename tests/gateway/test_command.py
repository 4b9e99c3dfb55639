"""install-rules, remove-rules and check-rules as an administrator types them."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.gateway.commands import command_line, watchdogs
from tests.gateway.network import SERVER, greeting, run
from tests.gateway.rules_host import within

if TYPE_CHECKING:
    from pathlib import Path

    from tests.gateway.rules_host import RulesHost


class Commands:
    """proxsmtp-tp on the gateway of a test."""

    def __init__(self, host: RulesHost, folder: Path) -> None:
        self.host = host
        self.config = folder / "gate.conf"
        self.config.write_text("TransparentProxy: client\nRuleInterface: lan0\nUser: nobody\n")

    def line(self, command: str, *arguments: str, config: bool = True) -> list[str]:
        """What to execute."""
        given = ["-f", str(self.config)] if config else []
        return command_line(self.host.net.gateway, self.host.state, command, *given, *arguments)

    def __call__(self, command: str, *arguments: str, config: bool = True) -> tuple[int, str, str]:
        """Run it; status, standard output, standard error."""
        done = subprocess.run(
            self.line(command, *arguments, config=config), capture_output=True, text=True, check=False, timeout=120
        )
        return done.returncode, done.stdout, done.stderr


@pytest.fixture
def proxsmtp_tp(host: RulesHost, tmp_path: Path) -> Commands:
    """The program."""
    return Commands(host, tmp_path)


def test_life_from_a_configuration_file(proxsmtp_tp: Commands) -> None:
    host = proxsmtp_tp.host
    before = host.snapshot()
    status, said, _ = proxsmtp_tp("install-rules", "--dry-run", "--mode", "tproxy")
    assert status == 0
    assert "table inet proxsmtp_gate {" in said
    assert "ip -4 rule add priority" in said
    assert "nothing of it is there" in said
    assert host.snapshot() == before
    assert proxsmtp_tp("check-rules")[0] == 1

    assert proxsmtp_tp("install-rules")[:2] == (0, "rules of instance gate: installed\n")
    assert proxsmtp_tp("install-rules")[:2] == (0, "rules of instance gate: already in place\n")
    assert "nothing would be changed" in proxsmtp_tp("install-rules", "--dry-run")[1]
    status, said, _ = proxsmtp_tp("check-rules")
    assert (status, said.splitlines()[:2]) == (0, ["rules of instance gate: in place", "intercepted, IPv4: never"])
    # The firewall's own view: what is loaded is the file of nftables/.
    assert 'elements = { "lan0" }' in run(host.net.gateway, "nft", "list", "table", "inet", "proxsmtp_gate")

    run(host.net.gateway, "nft", "flush", "chain", "inet", "proxsmtp_gate", "prerouting")
    status, said, _ = proxsmtp_tp("check-rules")
    assert status == 1
    assert "chain prerouting: missing: iifname @interfaces" in said
    status, said, _ = proxsmtp_tp("check-rules", "--json")
    found = json.loads(said)
    assert (status, found["state"], len(found["differences"])) == (1, "drifted", 3)

    assert "would remove: rules of method nftables" in proxsmtp_tp("remove-rules", "--dry-run")[1]
    # Without the configuration file its name is enough.
    proxsmtp_tp.config.unlink()
    status, said, complaint = proxsmtp_tp("remove-rules")
    assert (status, said) == (0, "rules of instance gate: removed\n")
    assert "taking the name that the file gives: gate" in complaint
    status, said, complaint = proxsmtp_tp("remove-rules", "--instance", "gate", config=False)
    assert (status, said, complaint) == (0, "rules of instance gate: there were none\n", "")
    assert host.snapshot() == before


def test_rules_are_not_forgotten_where_nft_is_missing(proxsmtp_tp: Commands) -> None:
    """They are in the kernel, also when nobody can list them."""
    assert proxsmtp_tp("install-rules")[0] == 0
    line = proxsmtp_tp.line("remove-rules")
    at = line.index(sys.executable)
    line[at:at] = ["env", "PATH=/nonexistent"]
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert "nft is not installed: apt-get install nftables" in done.stderr
    assert proxsmtp_tp("check-rules")[0] == 0
    assert proxsmtp_tp("remove-rules")[:2] == (0, "rules of instance gate: removed\n")


def test_a_wrong_name_gets_the_names_that_have_rules(proxsmtp_tp: Commands) -> None:
    """The rules of an instance without a configuration file are looked at and removed by its name."""
    for name, port in (("one", "25"), ("two", "587")):
        arguments = ["--interface", "lan0", "--instance", name, "--port", port]
        assert proxsmtp_tp("install-rules", *arguments, config=False)[0] == 0
    status, said, complaint = proxsmtp_tp("remove-rules", "--instance", "gate", config=False)
    assert (status, said) == (0, "rules of instance gate: there were none\n")
    assert complaint == "proxsmtp-tp: instances that have rules: one, two\n"
    for command in ("remove-rules", "check-rules", "install-rules", "doctor"):
        status, _, complaint = proxsmtp_tp(command, config=False)
        assert status == 2
        assert "no instance is configured: write /etc/proxsmtp-tp/NAME.conf" in complaint
        assert complaint.endswith("; instances that have rules: one, two\n")
    status, _, complaint = proxsmtp_tp("check-rules", "--instance", "gate", config=False)
    assert status == 2
    assert "there is no /etc/proxsmtp-tp/gate.conf" in complaint
    assert proxsmtp_tp("check-rules", "--instance", "one", config=False)[0] == 0
    for name in ("one", "two"):
        assert proxsmtp_tp("remove-rules", "--instance", name, config=False)[1].endswith("removed\n")


def test_refusals_say_what_to_do(proxsmtp_tp: Commands) -> None:
    before = proxsmtp_tp.host.snapshot()
    config = proxsmtp_tp.config
    for arguments, status, text in (
        (["--interface", "eth7"], 1, "interface eth7 does not exist. Interfaces: lan0 (192.0.2.1/24"),
        (["--interface", "a;flush ruleset;b;0123456"], 2, "is no name of a network interface"),
        (["--interface", 'l"0'], 2, "cannot be used as an interface"),
        (["--source", "192.0.2.0/24; flush ruleset"], 2, "is no network"),
        (["--source", "192.0.2.1/24"], 2, "write 192.0.2.0/24 for the whole network"),
        (["--port", "25}"], 2, "is no port"),
        (["--fail", "maybe"], 2, "is not one of closed, open"),
        (["--instance", "x; reboot"], 2, "is the configuration of instance gate, not x; reboot"),
        (["--mode", "tproxy", "--listen-port", "25"], 2, "cannot listen on an intercepted port"),
        (["--confirm", "0"], 2, "'0' is no time"),
        (["--confirm", "100000"], 2, "is not a number of seconds"),
    ):
        found = proxsmtp_tp("install-rules", *arguments)
        assert found[0] == status, arguments
        assert text in found[2], found
        assert "Traceback" not in found[2]
    config.write_text("TransparentProxy: client\n")
    status, _, said = proxsmtp_tp("install-rules")
    assert status == 1
    assert "no interface of clients is named" in said
    assert "lan0 (192.0.2.1/24, 2001:db8:1::1/64" in said
    status, _, said = proxsmtp_tp("install-rules", "--interface", "lan0", "--local")
    assert status == 2
    assert "set User" in said
    config.write_text("TransparentProxy: client\nRuleMode: tprox\nRulePort: 0\n")
    status, _, said = proxsmtp_tp("install-rules")
    assert status == 2
    assert ":2:" in said
    assert ":3:" in said
    assert proxsmtp_tp.host.snapshot() == before


def test_an_ordinary_user_gets_an_error(proxsmtp_tp: Commands) -> None:
    command = proxsmtp_tp.line("remove-rules")
    position = command.index(sys.executable)
    command[position:position] = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert "rules need root" in done.stderr


TRIAL = 12
"""Seconds: a command that ends at once, and a look at the rules, take less on a busy machine."""


def test_a_try_without_confirmation_is_undone(proxsmtp_tp: Commands) -> None:
    host = proxsmtp_tp.host
    before = host.snapshot()
    status, said, _ = proxsmtp_tp("install-rules", "--mode", "tproxy", "--confirm", str(2 * TRIAL))
    assert status == 0
    assert "undone in" in said
    assert "on trial" in proxsmtp_tp("check-rules", "--mode", "tproxy")[2]
    assert within(90, lambda: host.snapshot() == before and not host.state.exists())

    # If rules are installed already, it restores them.
    assert proxsmtp_tp("install-rules")[0] == 0
    installed = host.snapshot()
    assert proxsmtp_tp("install-rules", "--port", "587", "--confirm", str(TRIAL))[0] == 0
    assert host.snapshot() != installed
    assert within(90, lambda: host.snapshot() == installed)
    assert proxsmtp_tp("check-rules")[0] == 0


def test_a_try_is_kept_by_installing_again(proxsmtp_tp: Commands) -> None:
    host = proxsmtp_tp.host
    assert proxsmtp_tp("install-rules", "--confirm", "60")[0] == 0
    installed = host.snapshot()
    status, said, complained = proxsmtp_tp("install-rules")
    assert (status, said) == (0, "rules of instance gate: already in place\n")
    assert "confirmed" in complained
    (path,) = host.state.glob("*.json")
    assert json.loads(path.read_text())["deadline"] is None
    assert within(120, lambda: not watchdogs(host.state)), "something may still undo them"
    assert host.snapshot() == installed


@pytest.mark.parametrize(("typed", "status", "seconds"), [("yes\n", 0, 60), ("no\n", 1, 60), ("\x04", 1, TRIAL)])
def test_a_try_asks_at_the_terminal(proxsmtp_tp: Commands, typed: str, status: int, seconds: int) -> None:
    host = proxsmtp_tp.host
    before = host.snapshot()
    master, slave = pty.openpty()
    process = subprocess.Popen(
        proxsmtp_tp.line("install-rules", "--confirm", str(seconds)), stdin=slave, stdout=subprocess.PIPE, text=True
    )
    os.close(slave)
    assert process.stdout is not None
    assert "installed" in process.stdout.readline()
    assert 'type "yes"' in process.stdout.readline()
    os.write(master, typed.encode())
    assert process.wait(60) == status
    process.stdout.close()
    os.close(master)
    if status == 0:
        assert greeting(host.net.client, SERVER[4]) == "ConnectionRefusedError"
        assert proxsmtp_tp("remove-rules")[0] == 0
    assert within(90, lambda: host.snapshot() == before)


def test_a_try_survives_the_end_of_the_installing_process(proxsmtp_tp: Commands) -> None:
    host = proxsmtp_tp.host
    before = host.snapshot()
    master, slave = pty.openpty()
    process = subprocess.Popen(
        proxsmtp_tp.line("install-rules", "--confirm", str(TRIAL)), stdin=slave, stdout=subprocess.PIPE, text=True
    )
    os.close(slave)
    assert process.stdout is not None
    assert "installed" in process.stdout.readline()
    process.kill()
    process.wait()
    process.stdout.close()
    os.close(master)
    assert within(90, lambda: host.snapshot() == before)


def test_doctor_speaks_to_people_and_to_programs(proxsmtp_tp: Commands) -> None:
    status, said, _ = proxsmtp_tp("doctor")
    assert status == 1
    assert "ok     interface lan0: it is up\n" in said
    assert (
        f"WRONG  rules: they are not installed\n       fix: proxsmtp-tp install-rules -f {proxsmtp_tp.config}" in said
    )
    status, said, _ = proxsmtp_tp("doctor", "--json")
    found = json.loads(said)
    assert (status, found["ok"]) == (1, False)
    assert {"step": "listener", "ok": False} in [{k: f[k] for k in ("step", "ok")} for f in found["findings"]]
    proxsmtp_tp.config.write_text("RuleMode: nonsense\n")
    assert proxsmtp_tp("doctor")[0] == 1  # a finding: the daemon may run, with what it read before
