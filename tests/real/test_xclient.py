"""A real Postfix that trusts this host, behind XClient: on: nobody passes as the gateway itself.

postconf(5): mynetworks may relay, smtpd_authorized_xclient_hosts may say who the client is.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.lab import network
from proxsmtp_tp.lab.gateway import Instance
from tests.real.postfix import Postfix
from tests.unit.net.tls_legs import self_signed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from proxsmtp_tp.lab.network import GatewayNetwork

TRUSTING = {
    "mynetworks": "127.0.0.0/8",
    "smtpd_helo_required": "no",
    "smtpd_delay_reject": "no",
    "smtpd_helo_restrictions": "reject_invalid_helo_hostname",
    "smtpd_relay_restrictions": "permit_mynetworks, reject_unauth_destination",
}
LOCAL = "127.0.0.1"
HERE, ELSEWHERE = "RCPT TO:<bob@mx.example>", "RCPT TO:<victim@elsewhere.example>"
MAIL = "MAIL FROM:<a@client.example>"
EHLO = "EHLO client.example"


@pytest.fixture(scope="module")
def postfix(lab: GatewayNetwork, directory: Path) -> Iterator[Postfix]:
    """On the gateway; it may be told who the client is."""
    (directory / "local").mkdir()
    made = self_signed("mx.example")
    chain = directory / "mx.pem"
    chain.touch(0o600)
    chain.write_bytes(made.key + b"\n" + made.chain)
    tls = {"smtpd_tls_security_level": "may", "smtpd_tls_chain_files": str(chain), "smtpd_tls_loglevel": "1"}
    settings = TRUSTING | tls | {"smtpd_authorized_xclient_hosts": LOCAL, "smtpd_authorized_xforward_hosts": LOCAL}
    server = Postfix.start(lab.gateway, directory / "local", "mx.example", ("mx.example",), {}, settings)
    server.wait_ready()
    yield server
    lab.gateway.stop_all()


@pytest.fixture(scope="module", params=["on", "off", "encrypted"])
def instance(
    request: pytest.FixtureRequest, lab: GatewayNetwork, directory: Path, postfix: Postfix
) -> Iterator[Instance]:
    """Before it, with XClientRequired on and off; and where UpstreamTls encrypts the server's leg."""
    assert postfix.process.poll() is None
    directives = {
        "OutAddress": f"{LOCAL}:25",
        "XClient": "on",
        "XClientRequired": "off" if request.param == "off" else "on",
        "TempDirectory": str(directory),
    }
    if request.param == "encrypted":
        directives |= {"Tls": "strip", "UpstreamTls": "encrypt"}
    daemon = Instance(lab.gateway, directory, directives, f"xclient-{request.param}")
    daemon.start()
    yield daemon
    daemon.stop()


def encrypts(instance: Instance) -> bool:
    """Whether UpstreamTls encrypts the server's leg. After HELO a server offers no TLS."""
    return "UpstreamTls" in instance.directives


def said(lab: GatewayNetwork, address: str, groups: list[str]) -> list[str]:
    """The last line of each reply to the client in the LAN; each group of commands leaves in one segment."""
    with lab.sender.connect(address, 10025, 20) as link, link.makefile("rb") as replies:

        def reply() -> str:
            while (line := replies.readline().decode()) and line[3:4] == "-":
                pass
            return line.rstrip()

        told = [reply()]
        for group in groups:
            lines = group.split("\n")
            link.sendall("".join(f"{line}\r\n" for line in lines).encode())
            told += [reply() for _ in lines]
    return told


@pytest.mark.parametrize("address", [network.LAN_V4, network.LAN_V6])
@pytest.mark.parametrize(
    "groups",
    [
        [MAIL, ELSEWHERE],
        [f"{MAIL}\n{ELSEWHERE}"],
        [EHLO, MAIL, ELSEWHERE],
        [f"{EHLO}\n{MAIL}\n{ELSEWHERE}"],
        ["HELO client.example", MAIL, ELSEWHERE],
        [f"HELO client.example\n{MAIL}\n{ELSEWHERE}"],
        ["EHLO a@b", MAIL, ELSEWHERE],
        ["EHLO a@b", "HELO a@b", f"{MAIL}\n{ELSEWHERE}"],
        ["NOOP", "RSET", MAIL, ELSEWHERE],
        [EHLO, "EHLO a@b", MAIL, ELSEWHERE],
        [EHLO, "XCLIENT ADDR=127.0.0.1", MAIL, ELSEWHERE],
        [EHLO, "XFORWARD ADDR=127.0.0.1", MAIL, ELSEWHERE],
    ],
)
def test_no_client_relays_as_the_gateway(
    lab: GatewayNetwork, instance: Instance, address: str, groups: list[str]
) -> None:
    told = said(lab, address, groups)
    assert told[0].startswith("220")
    without_starttls = ("451 4.7.4 TLS is required",) if encrypts(instance) and "HELO" in "".join(groups) else ()
    assert told[-1].startswith(("5", *without_starttls)), told
    assert instance.log


def test_the_gateway_itself_could(lab: GatewayNetwork, postfix: Postfix) -> None:
    """The control: without us in between, any client from this host may relay."""
    assert postfix.process.poll() is None
    with lab.gateway.connect(LOCAL, 25, 20) as link, link.makefile("rb") as replies:
        for command in ("", MAIL, ELSEWHERE):
            if command:
                link.sendall(f"{command}\r\n".encode())
            assert replies.readline()[:3] in {b"220", b"250"}


@pytest.mark.parametrize("address", [network.LAN_V4, network.LAN_V6])
def test_mail_for_this_server_passes(lab: GatewayNetwork, instance: Instance, address: str) -> None:
    told = said(lab, address, [EHLO, f"{MAIL}\n{HERE}"])
    assert [line[:3] for line in told] == ["220", "250", "250", "250"], instance.log


def test_the_server_sees_the_client(lab: GatewayNetwork, instance: Instance, postfix: Postfix) -> None:
    before = len(postfix.log)
    assert said(lab, network.LAN_V4, [EHLO, MAIL, ELSEWHERE])[-1].startswith("554 5.7.1")
    seen = f"reject: RCPT from unknown[{network.SENDER_V4}]"
    end = time.monotonic() + 10
    while seen not in postfix.log[before:] and time.monotonic() < end:  # postlogd(8) writes it in its own time
        time.sleep(0.05)
    assert seen in postfix.log[before:], instance.log
    assert ("TLS with the server only: TLSv1" in instance.log) == encrypts(instance)


def test_the_log_of_the_server_names_our_trace_id(lab: GatewayNetwork, instance: Instance, postfix: Postfix) -> None:
    """XFORWARD IDENT, and nothing else about the client changes by it."""
    told = said(lab, network.LAN_V4, [EHLO, MAIL, HERE, "RSET", f"{MAIL}\n{HERE}"])
    assert [line[:3] for line in told[2:]] == ["250"] * 5, told
    found = re.findall(r"client=(\S+), orig_queue_id=([0-9A-Z]{13})$", postfix.log, re.MULTILINE)
    assert len(found) >= 2, postfix.log
    assert found[-1] == found[-2]
    client, trace_id = found[-1]
    assert network.SENDER_V4 in client
    assert trace_id in instance.log
