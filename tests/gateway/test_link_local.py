"""Link-local addresses: each is valid on one link only, so the configuration names the link with the address."""

from __future__ import annotations

import smtplib
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.gateway.doctor.mail_peers import Recorder
from proxsmtp_tp.lab.gateway import Instance
from proxsmtp_tp.lab.network import Host, LabError
from tests.gateway.network import LAN, Network, inside, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NEAR, CLIENT, FAR, SERVER = "fe80::1", "fe80::10", "fe80::2", "fe80::25"
SAYS_WHO = 'echo "X-Way: $CLIENT to $SERVER"; cat'


class Gateway:
    """Between a client and a server that have no other addresses in common with it than link-local ones."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.net = net = Network()
        self.host = Host(net.gateway)
        for name, device, address in (
            (net.gateway, "lan0", NEAR), (net.client, "eth0", CLIENT),
            (net.gateway, "wan0", FAR), (net.server, "eth0", SERVER),
        ):  # fmt: skip
            run(name, "ip", "address", "add", f"{address}/64", "dev", device, "nodad")

    def start(self, **directives: str) -> Instance:
        """The daemon with this configuration."""
        instance = Instance(self.host, self.directory, directives)
        instance.start()
        return instance

    def recorder(self, name: str) -> Recorder:
        """A mail server at port 2525 of a namespace."""
        recorder = Recorder()
        inside(name, lambda: recorder.listen("::", 2525))
        return recorder

    def send(self, server: str = f"{NEAR}%eth0") -> None:
        """One mail from the client."""

        def deliver() -> None:
            with smtplib.SMTP(server, 10025, timeout=20, local_hostname="client.example") as link:
                link.sendmail("a@example.org", ["b@example.net"], "Subject: test\r\n\r\nhello\r\n")

        inside(self.net.client, deliver)


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    """Ended at the end."""
    made = Gateway(tmp_path)
    yield made
    made.host.stop_all()
    made.net.close()


def test_loopback_mode(gateway: Gateway) -> None:
    gateway.start(Listen="10025", OutAddress="2525", FilterCommand=SAYS_WHO)
    home = gateway.recorder(gateway.net.client)
    gateway.send()
    (arrived,) = home.seen()
    assert arrived["peer"][0] == NEAR
    assert arrived["message"].startswith(f"X-Way: {CLIENT} to {CLIENT}\r\n")


def test_a_relay_from_one_link_to_another(gateway: Gateway) -> None:
    gateway.start(Listen=f"[{NEAR}%lan0]:10025", OutAddress=f"[{SERVER}%wan0]:2525", FilterCommand=SAYS_WHO)
    mx = gateway.recorder(gateway.net.server)
    gateway.send()
    (arrived,) = mx.seen()
    assert arrived["peer"][0] == FAR
    assert arrived["message"].startswith(f"X-Way: {CLIENT} to {SERVER}\r\n")


def test_a_scanner(gateway: Gateway) -> None:
    scanner = f"[{CLIENT}%lan0]:2525"
    gateway.start(Listen="10025", OutAddress=f"[{SERVER}%wan0]:2525", FilterType="smtp", FilterCommand=scanner)
    recorders = gateway.recorder(gateway.net.client), gateway.recorder(gateway.net.server)
    gateway.send(LAN[4])
    assert ["hello" in seen["message"] for recorder in recorders for seen in recorder.seen()] == [True, True]


def test_listening_on_a_link_that_is_not_there(gateway: Gateway) -> None:
    with pytest.raises(LabError, match=r"Listen \[fe80::1%lan9\]:10025: there is no interface lan9"):
        gateway.start(Listen=f"[{NEAR}%lan9]:10025", OutAddress="25")


def test_a_server_on_a_link_that_is_not_there(gateway: Gateway) -> None:
    gateway.start(Listen="10025", OutAddress=f"[{SERVER}%wan9]:2525")
    with pytest.raises(smtplib.SMTPConnectError, match=r"421, .*\[fe80::25%wan9\]:2525: there is no interface wan9"):
        gateway.send()
