"""The role's whole life on one gateway, in the order in which an administrator meets it: each test goes on from the
last one's machine.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.lab.gateway import changes
from proxsmtp_tp.lab.network import MX_V4, MX_V6, SENDER_V4
from proxsmtp_tp.lab.scenario import GTUBE, Setup
from proxsmtp_tp.service.privileges import CAP_NET_RAW
from tests.deploy import acceptance
from tests.deploy.machines import Machines, variables
from tests.deploy.prepare import BROKEN_VERSION, NEXT_VERSION

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.timeout(900)

EXPOSURE_MAX = 1.5
UNIT = "proxsmtp-tp@gateway.service"

# On the sender: mail after mail, each in a connection of its own, until told to stop; what was not taken is told.
_LOAD = """
import json, os, smtplib, sys
addresses, sent, refused = sys.argv[1:], 0, []
while not os.path.exists("/run/stop-load"):
    try:
        with smtplib.SMTP(addresses[sent % 2], 25, local_hostname="sender.example", timeout=60) as link:
            link.sendmail("alice@sender.example", ["bob@v4.example"], "X-Load: %d\\r\\n\\r\\n.\\r\\n" % sent)
    except Exception as error:
        refused.append("%d: %r" % (sent, error))
    sent += 1
json.dump({"sent": sent, "refused": refused}, sys.stdout)
"""


@pytest.fixture(scope="module", autouse=True)
def before(town: Machines) -> dict[str, list[str]]:
    """The gateway as it was."""
    return town.state()


@contextmanager
def load(town: Machines) -> Iterator[None]:
    """Mail flows meanwhile; afterwards none of it was refused, and each arrived once."""
    acceptance.empty(town.mx, acceptance.MAILBOX)
    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(town.sender.run, "python3", "-", MX_V4, MX_V6, text=_LOAD, seconds=400)
        try:
            assert acceptance.wait_until(lambda: count_arrived(town) > 5), "no mail flows"
            yield
            so_far = count_arrived(town)
            assert acceptance.wait_until(lambda: count_arrived(town) > so_far + 5), "no mail flows any more"
        finally:
            town.sender.run("touch", "/run/stop-load")
            told = json.loads(result.result())
            town.sender.run("rm", "/run/stop-load")
    assert told["refused"] == []
    assert told["sent"] > 20
    acceptance.wait_until(lambda: count_arrived(town) >= told["sent"])
    script = f"grep -h ^X-Load: -r {acceptance.MAILBOX}"
    arrived = Counter(int(line.split()[1]) for line in town.mx.run("sh", "-c", script).splitlines())
    assert arrived == Counter(range(told["sent"]))


def count_arrived(town: Machines) -> int:
    """Letters at the MX."""
    return int(town.mx.run("sh", "-c", f"ls {acceptance.MAILBOX} | wc -l"))


def daemon_version(town: Machines) -> str:
    """Of the daemon that runs."""
    (answer,) = json.loads(town.gateway.run("proxsmtp-tp", "status", "--json"))
    return str(answer["version"])


def test_check_mode_on_a_fresh_machine_says_what_it_would_do(town: Machines, before: dict[str, list[str]]) -> None:
    run = town.play("--check", "--diff", **variables())
    assert run.status == 0, run.output
    assert "+RuleInterface: lan" in run.output
    assert changes(before, town.state()) == []


def test_the_first_run_makes_a_gateway_and_the_second_changes_nothing(town: Machines) -> None:
    """Molecule's scenario: converge, idempotence, verify."""
    run = town.molecule()
    assert run.status == 0, run.output
    assert "idempotence: Executed: Successful" in re.sub(r"\x1b\[[0-9;]*m", "", run.output), run.output
    acceptance.accept(town.site, Setup("redirect", "client"))


def look_at_hardening(town: Machines, capsys: pytest.CaptureFixture[str], mode: str, capabilities: int) -> None:
    """What systemd says of the running daemon, printed, and what the kernel lets it keep at most."""
    said = town.gateway.run("systemd-analyze", "security", "--no-pager", UNIT)
    figure = re.search(r"Overall exposure level for \S+: ([0-9.]+)", said)
    assert figure is not None, said
    with capsys.disabled():
        print(f"\nsystemd-analyze security, {mode}: {figure[1]}")
    assert float(figure[1]) <= EXPOSURE_MAX, said
    process = town.gateway.run("systemctl", "show", "-P", "MainPID", UNIT).strip()
    status = town.gateway.run("cat", f"/proc/{process}/status")
    found = dict(re.findall(r"^(CapBnd|NoNewPrivs):\s*(\w+)$", status, re.MULTILINE))
    assert (int(found["CapBnd"], 16), found["NoNewPrivs"]) == (capabilities, "1")


def test_the_daemon_is_hardened(town: Machines, capsys: pytest.CaptureFixture[str]) -> None:
    look_at_hardening(town, capsys, "client mode", 0)


def test_check_mode_is_silent_then(town: Machines) -> None:
    run = town.play("--check", "--diff", **variables())
    assert (run.status, run.changes) == (0, []), run.output
    assert not re.search(r"^(\+\+\+|---) ", run.output, re.MULTILINE), run.output


def test_check_mode_shows_a_difference(town: Machines) -> None:
    run = town.play("--check", "--diff", "--tags", "proxsmtp_tp_config", **variables(max_connections=77))
    assert run.status == 0, run.output
    assert "+MaxConnections: 77" in run.output
    assert "77" not in town.gateway.run("cat", "/etc/proxsmtp-tp/gateway.conf")


def test_a_wrong_configuration_changes_nothing(town: Machines) -> None:
    old = town.gateway.run("cat", "/etc/proxsmtp-tp/gateway.conf")
    run = town.play("--tags", "proxsmtp_tp_config", **variables(time_out=0))
    assert run.status != 0
    assert "TimeOut" in run.output
    assert town.gateway.run("cat", "/etc/proxsmtp-tp/gateway.conf") == old


def test_a_changed_directive_is_taken_by_a_reload(town: Machines) -> None:
    """No restart: the same master, and nobody refused."""
    master = town.gateway.run("systemctl", "show", "-P", "MainPID", UNIT)
    with load(town):
        run = town.play(**variables(max_connections=77))
    assert run.status == 0, run.output
    assert {"Reload the daemons", "Reload the rules"} <= {task.partition(" : ")[2] for task in run.changes}
    (answer,) = json.loads(town.gateway.run("proxsmtp-tp", "status", "--json"))
    assert answer["max_connections"] == 77
    assert town.gateway.run("systemctl", "show", "-P", "MainPID", UNIT) == master


def test_the_rules_survive_the_firewall(town: Machines) -> None:
    """A reload and a restart of nftables.service flush the ruleset."""
    town.gateway.run("systemctl", "start", "nftables.service")
    town.gateway.run("systemctl", "restart", "proxsmtp-tp-rules@gateway.service")
    for verb in ("reload", "restart"):
        town.gateway.run("systemctl", verb, "nftables.service")
        assert acceptance.wait_until(lambda: rules_in_place(town)), f"{verb}: the rules are gone"
    town.gateway.run("systemctl", "stop", "nftables.service")
    town.gateway.run("systemctl", "start", "proxsmtp-tp-rules@gateway.service")
    assert rules_in_place(town)


def rules_in_place(town: Machines) -> bool:
    """What check-rules says."""
    said = town.gateway.run("proxsmtp-tp", "check-rules", "-f", "/etc/proxsmtp-tp/gateway.conf", "--json", check=False)
    return '"in place"' in said


def test_a_crash_is_mended(town: Machines) -> None:
    old = town.gateway.run("systemctl", "show", "-P", "MainPID", UNIT).strip()
    town.gateway.run("systemctl", "kill", "--kill-whom=all", "--signal=KILL", UNIT)
    assert acceptance.wait_until(
        lambda: (
            town.gateway.run("systemctl", "is-active", UNIT, check=False).strip() == "active"
            and town.gateway.run("systemctl", "show", "-P", "MainPID", UNIT).strip() != old
        )
    )
    acceptance.accept_queues(town.site)


def test_the_gateway_comes_back_from_a_reboot(town: Machines) -> None:
    town.stop_gateway()
    town.boot_gateway()
    acceptance.accept(town.site, Setup("redirect", "client"))


def test_an_upgrade_refuses_and_loses_no_mail(town: Machines) -> None:
    with load(town):
        run = town.play(**variables(NEXT_VERSION))
    assert run.status == 0, run.output
    assert daemon_version(town) == NEXT_VERSION
    assert rules_in_place(town)


def test_an_upgrade_that_does_not_come_up_is_rolled_back(town: Machines) -> None:
    with load(town):
        run = town.play(**variables(BROKEN_VERSION, max_connections=77))
    assert run.status != 0
    assert f"{NEXT_VERSION} runs as before" in run.output
    assert daemon_version(town) == NEXT_VERSION
    assert "77" not in town.gateway.run("cat", "/etc/proxsmtp-tp/gateway.conf")
    assert rules_in_place(town)


@pytest.mark.parametrize(("mode", "method"), [("redirect", "nftables"), ("tproxy", "iptables")])
def test_full_mode(town: Machines, mode: str, method: str, capsys: pytest.CaptureFixture[str]) -> None:
    run = town.play(**variables(NEXT_VERSION, transparent_proxy="full", rule_mode=mode, rule_method=method))
    assert run.status == 0, run.output
    assert ("proxsmtp" in town.gateway.run("nft", "list", "tables")) == (method == "nftables")
    assert (":PXIN" in town.gateway.run("iptables-legacy-save")) == (method == "iptables")
    look_at_hardening(town, capsys, f"full mode, {mode}", 1 << CAP_NET_RAW)
    acceptance.accept(town.site, Setup(mode, "full"))


def test_the_command_would_write_the_same_drop_in(town: Machines) -> None:
    """install-service, for those without Ansible, gives a daemon what the role gives it."""
    script = (
        "from proxsmtp_tp.config.reader import read_config; from proxsmtp_tp.cli.service_units import daemon_drop_in;"
        "print(daemon_drop_in(read_config('/etc/proxsmtp-tp/gateway.conf')))"
    )
    ours = town.gateway.run("/opt/proxsmtp-tp/current/bin/python", "-c", script)
    role = town.gateway.run("cat", f"/etc/systemd/system/{UNIT}.d/10-configuration.conf")
    assert role.partition("[Service]")[2].split() == ours.partition("[Service]")[2].split()


def filtered(town: Machines) -> bool:
    """Whether mail from the MX to the sender meets a filter; it comes in by wan. What does not has arrived then."""
    acceptance.empty(town.sender, acceptance.MAILBOX)
    (reply,) = acceptance.send(town.mx, [SENDER_V4], "alice@sender.example", f"Subject: back\r\n\r\n{GTUBE}\r\n")
    refused = not reply.startswith("250 ")
    assert refused or acceptance.arrived(town.sender, acceptance.MAILBOX, 1)
    return refused


def test_a_second_instance_comes_fails_open_and_goes(town: Machines) -> None:
    instances = {
        "gateway": {},
        "inbound": {"rule_interface": ["wan"], "listen": ["10026"], "rule_fail": "open", "drain_time_out": 1},
    }
    assert not filtered(town)
    run = town.play(**variables(NEXT_VERSION, instances=instances))
    assert run.status == 0, run.output
    assert filtered(town)
    town.gateway.run("systemctl", "stop", "proxsmtp-tp@inbound.service")
    assert not filtered(town)
    town.gateway.run("systemctl", "start", "proxsmtp-tp@inbound.service")
    assert acceptance.wait_until(lambda: filtered(town))
    run = town.play("--tags", "proxsmtp_tp_service,proxsmtp_tp_verify", **variables(NEXT_VERSION))
    assert run.status == 0, run.output
    assert not filtered(town)
    assert "inbound" not in town.gateway.run("find", "/etc", "/var/lib", "/var/log", "-name", "*inbound*")
    assert "10026" not in town.gateway.run("nft", "list", "ruleset")
    acceptance.accept_queues(town.site)


def test_absent_leaves_nothing(town: Machines, before: dict[str, list[str]]) -> None:
    run = town.play(state="absent")
    assert run.status == 0, run.output
    assert changes(before, town.state()) == []
    again = town.play(state="absent")
    assert (again.status, again.changes) == (0, []), again.output


def test_mail_passes_without_us(town: Machines) -> None:
    for name in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"):
        town.router.sysctl(name, 1)
    acceptance.accept_direct(town.site)
