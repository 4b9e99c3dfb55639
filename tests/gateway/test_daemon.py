"""The real daemon behind the rules: which addresses each side and the filter see, and that there is no loop."""

from __future__ import annotations

import os
import signal
import smtplib
import socket
import sys
from contextlib import closing, suppress
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.gateway.doctor.listeners import listening
from proxsmtp_tp.gateway.doctor.mail_peers import Recorder
from tests.gateway.daemon_host import DaemonHost
from tests.gateway.network import CLIENT, LAN, SERVER, WAN, inside, open_socket, run
from tests.gateway.rules_host import SOON, within

if TYPE_CHECKING:
    from collections.abc import Iterator

# CLIENT and SERVER, as the filter sees them, travel in the message.
FILTER = '#!/bin/sh\necho "X-Way: $CLIENT to $SERVER"\ncat\n'
SEND = """
import smtplib, sys
with smtplib.SMTP(sys.argv[1], 25, timeout=20) as link:
    link.sendmail("a@example.org", ["b@example.net"], "Subject: own\\r\\n\\r\\nhello\\r\\n")
"""


@pytest.fixture
def hosts() -> Iterator[list[DaemonHost]]:
    """Gateways to be closed at the end."""
    found: list[DaemonHost] = []
    yield found
    for host in found:
        host.close()


def gateway(hosts: list[DaemonHost], **directives: str) -> tuple[DaemonHost, Recorder]:
    """A gateway whose filter says what it sees, and a mail server behind it."""
    host = DaemonHost(**directives)
    hosts.append(host)
    host.filter.write_text(FILTER)
    recorder = Recorder()
    for version in (4, 6):
        inside(host.net.server, lambda address=SERVER[version]: recorder.listen(address, 25))  # type: ignore[misc]
    return host, recorder


def send(name: str, server: str, seconds: float = 20) -> None:
    """One mail from a namespace."""

    def deliver() -> None:
        with smtplib.SMTP(server, 25, timeout=seconds, local_hostname="client.example") as link:
            link.sendmail("a@example.org", ["b@example.net"], "Subject: test\r\n\r\nhello\r\n")

    inside(name, deliver)


@pytest.mark.parametrize("mode", ["redirect", "tproxy"])
@pytest.mark.parametrize("transparency", ["client", "full"])
def test_whom_server_and_filter_see(hosts: list[DaemonHost], mode: str, transparency: str) -> None:
    host, recorder = gateway(hosts, RuleMode=mode, TransparentProxy=transparency)
    for version in (4, 6):
        send(host.net.client, SERVER[version])
        seen = recorder.seen()[-1]
        assert seen["peer"][0] == (CLIENT if transparency == "full" else WAN)[version]
        assert seen["message"].startswith(f"X-Way: {CLIENT[version]} to {SERVER[version]}\r\n")


@pytest.mark.parametrize("mode", ["redirect", "tproxy"])
def test_mail_of_the_host_itself(hosts: list[DaemonHost], mode: str) -> None:
    host, recorder = gateway(hosts, RuleMode=mode, TransparentProxy="client", RuleLocal="on")
    for version in (4, 6):
        run(host.gateway, sys.executable, "-c", SEND, SERVER[version])
        assert recorder.seen()[-1]["message"].startswith(f"X-Way: {WAN[version]} to {SERVER[version]}\r\n")
    # Once each: the daemon's own connections went straight to the server.
    assert len(recorder.seen()) == 2


@pytest.mark.parametrize("mode", ["redirect", "tproxy"])
def test_a_connection_straight_to_the_listener_is_refused(hosts: list[DaemonHost], mode: str) -> None:
    host, recorder = gateway(hosts, RuleMode=mode, TransparentProxy="client")
    for version in (4, 6):
        with closing(open_socket(host.net.client, socket.AF_INET6 if version == 6 else socket.AF_INET)) as link:
            link.settimeout(20)
            link.connect((LAN[version], 10025))
            said = b""
            while chunk := link.recv(512):
                said += chunk
            assert said.startswith(b"421 ")
    assert recorder.seen() == []
    assert host.instance.log.count("no original destination") == 2


@pytest.mark.parametrize(("method", "mode"), [("nftables", "redirect"), ("iptables", "tproxy")])
@pytest.mark.parametrize("fail", ["closed", "open"])
def test_a_daemon_that_is_killed(hosts: list[DaemonHost], method: str, mode: str, fail: str) -> None:
    """kill -9 of all its processes: no mail passes (closed), or it passes within seconds (open); then it is back."""
    host, recorder = gateway(hosts, RuleMethod=method, RuleMode=mode, TransparentProxy="client", RuleFail=fail)

    def arrives() -> str:
        """How a mail arrives now: filtered, direct, or not at all."""
        known = len(recorder.seen())
        try:
            send(host.net.client, SERVER[4], seconds=2)
        except (OSError, smtplib.SMTPException):
            return "not at all"
        (arrived,) = recorder.seen()[known:]
        return "filtered" if arrived["message"].startswith("X-Way:") else "direct"

    assert within(SOON, lambda: arrives() == "filtered")
    for pid in {pid for item in inside(host.gateway, lambda: listening(10025)) for pid in item.pids}:
        with suppress(ProcessLookupError):  # a worker whose master is gone already has ended by itself
            os.kill(pid, signal.SIGKILL)
    host.instance.host.stop_all()
    known = len(recorder.seen())
    if fail == "open":
        assert within(SOON, lambda: arrives() == "direct")
    else:
        assert [arrives() for _ in range(3)] == ["not at all"] * 3
        assert len(recorder.seen()) == known
    host.instance.start()
    assert within(SOON, lambda: arrives() == "filtered")


def test_loopback_mode_with_rules(hosts: list[DaemonHost]) -> None:
    host, recorder = gateway(hosts, OutAddress="2525")
    home = Recorder()
    for version in (4, 6):
        inside(host.net.client, lambda address=CLIENT[version]: home.listen(address, 2525))  # type: ignore[misc]
        send(host.net.client, SERVER[version])
        assert home.seen()[-1]["peer"][0] == LAN[version]
        assert home.seen()[-1]["message"].startswith(f"X-Way: {CLIENT[version]} to ")
    assert recorder.seen() == []
