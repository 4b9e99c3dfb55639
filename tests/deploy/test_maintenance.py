"""Restart, upgrade, reload, and rules that vanish, on a gateway with systemd: nobody is refused, nothing is lost.

Clients connect all the time, one after the other, and one of them sends its message slowly.
"""

from __future__ import annotations

import json
import re
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest

from proxsmtp_tp.lab.network import MX_V4, LabError
from tests.deploy import acceptance, documented_commands, manual_install
from tests.deploy.machines import wheel
from tests.deploy.prepare import NEXT_VERSION
from tools.deb import VERSION

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.deploy.machines import Machines

pytestmark = pytest.mark.timeout(300)

DAEMON = "proxsmtp-tp@gateway.service"
RULES = "proxsmtp-tp-rules@gateway.service"
WATCH = "proxsmtp-tp-rules-watch@gateway.service"
CONFIG = "/etc/proxsmtp-tp/gateway.conf"
END = "/tmp/end"
DRAIN_SECONDS = 30
"""The default of DrainTimeOut: the time in which an old daemon may finish."""

# On the sender: connects, is greeted and leaves, again and again until END is there. What went wrong is kept.
_CONNECT = f"""
import json, os, socket, time
said, slowest, number = [], 0.0, 0
while not os.path.exists("{END}"):
    began = time.monotonic()
    number += 1
    try:
        with socket.create_connection(("{MX_V4}", 25), 60) as link:
            greeting = link.recv(512)
            if not greeting.startswith(b"220"):
                said.append(repr(greeting))
            link.sendall(b"QUIT\\r\\n")
            while link.recv(512):
                pass
    except OSError as error:
        said.append(repr(error))
    slowest = max(slowest, time.monotonic() - began)
    time.sleep(0.02)
print(json.dumps(dict(number=number, slowest=slowest, said=said)))
"""
# On the sender: a message whose end comes when END is there.
_SLOW_MESSAGE = f"""
import os, smtplib, time
link = smtplib.SMTP("{MX_V4}", 25, local_hostname="sender.example", timeout=120)
link.ehlo()
link.mail("alice@sender.example")
link.rcpt("bob@v4.example")
link.docmd("DATA")
link.send(b"Subject: SUBJECT\\r\\n\\r\\n")
while not os.path.exists("{END}"):
    link.send(b"one more line\\r\\n")
    time.sleep(0.5)
link.send(b"the last line\\r\\n")
print(*link.docmd("."))
"""


@dataclass
class Load:
    """What clients have seen, once the load has ended."""

    connected: dict[str, Any]
    slow_reply: str


@pytest.fixture(scope="module")
def gateway(machines: Machines) -> Iterator[Machines]:
    """Installed by hand, with its rules; the next version lies beside it."""
    run = machines.gateway.run
    run("sysctl", "-q", "-w", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
    with manual_install.wheels(machines):
        for version in (VERSION, NEXT_VERSION):
            shutil.copy(wheel(version), machines.gateway.root / "root/wheels")
        install, _ = documented_commands.blocks("deployment.md", "## By hand")
        # What the page shows is the business of test_service.
        typed = [replace(step, shown=[]) for step in install if "doctor" not in step.command]
        documented_commands.follow(machines.gateway, typed)
        yield machines
        run("proxsmtp-tp", "remove-service", "--purge")
        run("rm", "-r", "/etc/proxsmtp-tp")


@contextmanager
def load(machines: Machines) -> Iterator[Future[Load]]:
    """Clients all the time. The result is there after the block."""
    sender = machines.sender
    sender.run("rm", "-f", END)
    found: Future[Load] = Future()
    with ThreadPoolExecutor() as pool:
        connected = pool.submit(sender.run, "python3", "-c", _CONNECT)
        slow_reply = pool.submit(sender.run, "python3", "-c", _SLOW_MESSAGE)
        try:
            assert acceptance.wait_until(lambda: connections(machines) > 0), journal(machines)
            yield found
        except BaseException:
            print(journal(machines))
            raise
        finally:
            sender.run("touch", END)
        found.set_result(Load(json.loads(connected.result()), slow_reply.result()))


def connections(machines: Machines) -> int:
    """What the daemon serves."""
    return sum(answer["connections"] for answer in status(machines))


def journal(machines: Machines) -> str:
    """What the daemon and systemd said."""
    return machines.gateway.run("journalctl", "-u", DAEMON, "--no-pager")


def status(machines: Machines) -> list[dict[str, Any]]:
    """The daemon's, whatever its exit status is."""
    found: list[dict[str, Any]] = json.loads(
        machines.gateway.run("proxsmtp-tp", "status", "--json", check=False) or "[]"
    )
    return found


def nobody_was_refused(machines: Machines, found: Load) -> None:
    """Each client was greeted, in time; the slow message was taken."""
    assert found.connected["said"] == [], "\n".join(
        line for line in journal(machines).splitlines() if "id=" not in line
    )
    assert found.connected["number"] >= 5
    assert found.connected["slowest"] < DRAIN_SECONDS / 2, "clients waited for the old daemon"
    assert found.slow_reply.startswith("250 ")


def test_a_restart_refuses_no_client(gateway: Machines) -> None:
    before = status(gateway)[0]["pid"]
    kept = gateway.gateway.run("systemctl", "show", "-p", "NFileDescriptorStore", DAEMON)
    assert kept == "NFileDescriptorStore=2\n"
    with load(gateway) as found:
        for _ in range(3):
            gateway.gateway.run("systemctl", "restart", DAEMON, seconds=DRAIN_SECONDS / 2)
        # The message that was begun before goes on in a process of the first daemon.
        assert "left-over" in journal(gateway)
    nobody_was_refused(gateway, found.result())
    assert status(gateway)[0]["pid"] != before


def test_systemd_keeps_no_socket_for_a_daemon_that_cannot_start(gateway: Machines) -> None:
    """It is started again each second: clients are refused meanwhile, and do not wait."""
    run = gateway.gateway.run
    run("cp", "-a", CONFIG, "/root/good.conf")
    run("sh", "-c", f"echo 'Listen: 10025, 198.51.100.77:10026' >>{CONFIG}")
    run("systemctl", "restart", "--no-block", DAEMON)
    kept = ("systemctl", "show", "-p", "NFileDescriptorStore", "--value", DAEMON)
    assert acceptance.wait_until(lambda: "this machine has no such address" in journal(gateway))
    assert acceptance.wait_until(lambda: run(*kept) == "0\n")
    run("mv", "/root/good.conf", CONFIG)
    run("systemctl", "restart", DAEMON)
    assert acceptance.wait_until(lambda: run(*kept) == "2\n")


def test_an_upgrade_by_hand_refuses_no_client(gateway: Machines) -> None:
    run = gateway.gateway.run
    with load(gateway) as found:
        run("/opt/proxsmtp-tp/bin/pip", "install", "-q", f"proxsmtp_tp=={NEXT_VERSION}")
        said = run("proxsmtp-tp", "install-service")
        assert f"restart {DAEMON}" in said
    nobody_was_refused(gateway, found.result())
    assert [answer["version"] for answer in status(gateway)] == [NEXT_VERSION]
    run("/opt/proxsmtp-tp/bin/pip", "install", "-q", f"proxsmtp_tp=={VERSION}")
    run("proxsmtp-tp", "install-service")


def test_a_stop_ends_everything(gateway: Machines) -> None:
    run = gateway.gateway.run
    manual_install.leave_behind(gateway, DAEMON)
    run("systemctl", "stop", DAEMON)
    assert run("pgrep", "-l", "-u", "proxsmtp-tp", check=False) == "", run("systemctl", "status", DAEMON, check=False)
    run("systemctl", "start", DAEMON)


def test_a_reload_that_fails_is_a_failed_reload(gateway: Machines) -> None:
    run = gateway.gateway.run
    run("cp", "-a", CONFIG, "/root/good.conf")
    run("sh", "-c", f"echo 'TimeOut: never' >>{CONFIG}")
    with pytest.raises(LabError):
        run("systemctl", "reload", DAEMON)
    assert re.search(f"{CONFIG}:\\d+: TimeOut: 'never'", journal(gateway))
    assert "the file is wrong now" in run("proxsmtp-tp", "status", check=False)
    run("mv", "/root/good.conf", CONFIG)
    run("systemctl", "reload", DAEMON)
    assert "in force since" in run("proxsmtp-tp", "status")


def rules(machines: Machines) -> str:
    """What status says of them."""
    return next((str(answer["rules"]["state"]) for answer in status(machines) if answer["rules"]), "not watched")


@pytest.mark.parametrize(
    "removal",
    [
        ("nft", "flush", "ruleset"),
        ("systemctl", "restart", "nftables"),
        ("sh", "-c", "systemctl stop nftables; systemctl start nftables"),
        ("nft", "flush", "chain", "inet", "proxsmtp_gateway", "prerouting"),
    ],
    ids=["flush", "restart", "stop and start", "one chain"],
)
def test_rules_that_another_program_removes_come_back(gateway: Machines, removal: tuple[str, ...]) -> None:
    run = gateway.gateway.run
    look = ("proxsmtp-tp", "check-rules", "-f", CONFIG)
    assert acceptance.wait_until(lambda: rules(gateway) == "in place")
    before = run("journalctl", "-u", WATCH, "--no-pager").count("they are put back")
    run("systemctl", "start", "nftables")
    run(*removal)
    assert acceptance.wait_until(lambda: "in place" in run(*look, check=False))
    assert acceptance.wait_until(
        lambda: run("journalctl", "-u", WATCH, "--no-pager", "-p", "err").count("they are put back") > before
    )
    assert acceptance.wait_until(lambda: rules(gateway) == "in place")


def test_rules_that_the_administrator_removes_stay_away(gateway: Machines) -> None:
    run = gateway.gateway.run
    run("systemctl", "stop", RULES)
    assert run("systemctl", "is-active", WATCH, check=False) == "inactive\n"
    run("systemctl", "restart", "nftables")
    assert "proxsmtp" not in run("nft", "list", "tables")
    run("systemctl", "start", RULES)
    assert acceptance.wait_until(lambda: rules(gateway) == "in place")
    run("proxsmtp-tp", "remove-rules", "-f", CONFIG)
    assert acceptance.wait_until(lambda: rules(gateway) == "absent")
    assert "rules: absent" in run("proxsmtp-tp", "status", check=False)
    run("systemctl", "restart", RULES)
    assert acceptance.wait_until(lambda: rules(gateway) == "in place")
