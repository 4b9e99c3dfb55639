"""Links with a smaller MTU behind the gateway, on either side, and hosts that are not there: what routers report
(RFC 1191, RFC 8201, RFC 1122 section 4.2.3.9) reaches the daemon, whose sockets have other hosts' addresses.

    far client --- client (a router here) --- gateway --- server (a router here) --- far server
"""

from __future__ import annotations

import itertools
import smtplib
import subprocess
import time
from ipaddress import ip_interface
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.gateway.doctor.mail_peers import LONG_REPLY_OCTETS, Recorder
from tests.gateway.daemon_host import DaemonHost
from tests.gateway.network import CLIENT, SERVER, inside, run
from tests.gateway.rules_host import within

if TYPE_CHECKING:
    from collections.abc import Iterator

WAYS = list(itertools.product(["nftables", "iptables"], ["redirect", "tproxy"], ["client", "full"]))
FAR_CLIENT = {4: "203.0.113.10", 6: "2001:db8:3::10"}
FAR_SERVER = {4: "203.0.113.210", 6: "2001:db8:4::10"}
NOBODY = {4: "203.0.113.211", 6: "2001:db8:4::11"}
ROUTER = {FAR_CLIENT[4]: "203.0.113.1", FAR_CLIENT[6]: "2001:db8:3::1", FAR_SERVER[4]: "203.0.113.193",
          FAR_SERVER[6]: "2001:db8:4::1"}  # fmt: skip
TEXT = "Subject: long\r\n\r\n" + 400 * ("x" * 48 + "\r\n")  # 20 kB
SECONDS = 20  # of a black hole: far below any time limit of the daemon, far above what it takes otherwise


class Far:
    """A gateway between two routers, and a host behind each by a link with an MTU of 1400 on the router's side only.

    Both ends of a connection announce segments for 1500, as hosts do that know nothing of the link.
    """

    def __init__(self, **directives: str) -> None:
        self.host = DaemonHost(**directives)
        net = self.host.net
        self.client, self.server = f"{net.client}far", f"{net.server}far"
        self._attach(self.client, net.client, FAR_CLIENT, 25)
        self._attach(self.server, net.server, FAR_SERVER, 27)
        for version in (4, 6):
            for near, far in ((CLIENT, FAR_CLIENT), (SERVER, FAR_SERVER)):
                network = f"{far[version]}/{_length(version, 27)}"
                run(net.gateway, "ip", "route", "replace", _network(network), "via", near[version])
            run(net.server, "ip", "route", "add", "unreachable", NOBODY[version])
        self.recorder = Recorder()
        for version in (4, 6):
            inside(self.server, lambda address=FAR_SERVER[version]: self.recorder.listen(address, 25))  # type: ignore[misc]

    @staticmethod
    def _attach(name: str, router: str, addresses: dict[int, str], length: int) -> None:
        subprocess.run(["ip", "netns", "add", name], check=True)
        run(name, "ip", "link", "set", "lo", "up")
        run(router, "ip", "link", "add", "far0", "type", "veth", "peer", "name", "eth0", "netns", name)
        for version, address in addresses.items():
            size = _length(version, length)
            dad = ("nodad",) if version == 6 else ()
            run(name, "ip", "addr", "add", f"{address}/{size}", "dev", "eth0", *dad)
            run(router, "ip", "addr", "add", f"{ROUTER[address]}/{size}", "dev", "far0", *dad)
        run(name, "ip", "link", "set", "eth0", "up")
        run(router, "ip", "link", "set", "far0", "up", "mtu", "1400")
        run(router, "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        for version, address in addresses.items():
            run(name, "ip", f"-{version}", "route", "add", "default", "via", ROUTER[address])

    def close(self) -> None:
        """End everything."""
        for name in (self.client, self.server):
            subprocess.run(["ip", "netns", "del", name], check=False)
        self.host.close()


def _length(version: int, length: int) -> int:
    return length if version == 4 else 64


def _network(text: str) -> str:
    return str(ip_interface(text).network)


@pytest.fixture(scope="module", params=WAYS, ids=["-".join(way) for way in WAYS])
def far(request: pytest.FixtureRequest) -> Iterator[Far]:
    """A gateway with the real daemon."""
    method, mode, transparency = request.param
    made = Far(RuleMethod=method, RuleMode=mode, TransparentProxy=transparency, FilterCommand="cat")
    yield made
    made.close()


@pytest.mark.parametrize("version", [4, 6])
def test_a_long_message_arrives(far: Far, version: int) -> None:
    def deliver() -> None:
        with smtplib.SMTP(FAR_SERVER[version], 25, timeout=SECONDS, local_hostname="client.example") as link:
            link.sendmail("a@example.org", ["b@example.net"], TEXT)

    inside(far.client, deliver)
    assert far.recorder.seen()[-1]["message"] == TEXT


@pytest.mark.parametrize("version", [4, 6])
def test_a_long_reply_arrives(far: Far, version: int) -> None:
    def ask() -> int:
        with smtplib.SMTP(FAR_SERVER[version], 25, timeout=SECONDS, local_hostname="client.example") as link:
            link.ehlo()
            return len(link.docmd("HELP")[1])

    assert inside(far.client, ask) > LONG_REPLY_OCTETS


@pytest.mark.parametrize("version", [4, 6])
def test_a_host_that_is_not_there_is_noticed_at_once(far: Far, version: int) -> None:
    begun = time.monotonic()

    def ask() -> str:
        try:
            smtplib.SMTP(NOBODY[version], 25, timeout=SECONDS)
        except (OSError, smtplib.SMTPException) as error:
            return type(error).__name__
        return "served"

    assert inside(far.client, ask) in {"ConnectionResetError", "SMTPServerDisconnected", "SMTPConnectError"}
    assert time.monotonic() - begun < SECONDS / 2
    assert within(10, lambda: f"{NOBODY[version]}" in far.host.instance.log)
    (line,) = [
        line for line in far.host.instance.log.splitlines() if "no connection" in line and NOBODY[version] in line
    ]
    assert {4: ": No route to host, id=", 6: ": Network is unreachable, id="}[version] in line
