"""The real daemon behind the rules: whom each side and the filter see, and that nothing goes in circles."""

from __future__ import annotations

import smtplib
import socket
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.gateway.doctor.prober import Recorder
from tests.gateway.clinic import Clinic
from tests.gateway.network import CLIENT, LAN, SERVER, WAN, inside, open_socket, run

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
def clinics() -> Iterator[list[Clinic]]:
    """Gateways to be closed at the end."""
    found: list[Clinic] = []
    yield found
    for clinic in found:
        clinic.close()


def gateway(clinics: list[Clinic], **directives: str) -> tuple[Clinic, Recorder]:
    """A gateway whose filter says what it sees, and a mail server behind it."""
    clinic = Clinic(**directives)
    clinics.append(clinic)
    clinic.filter.write_text(FILTER)
    recorder = Recorder()
    for version in (4, 6):
        inside(clinic.net.server, lambda address=SERVER[version]: recorder.listen(address, 25))  # type: ignore[misc]
    return clinic, recorder


def send(name: str, server: str) -> None:
    """One mail from a namespace."""

    def deliver() -> None:
        with smtplib.SMTP(server, 25, timeout=20, local_hostname="client.example") as link:
            link.sendmail("a@example.org", ["b@example.net"], "Subject: test\r\n\r\nhello\r\n")

    inside(name, deliver)


@pytest.mark.parametrize("mode", ["redirect", "tproxy"])
@pytest.mark.parametrize("transparency", ["client", "full"])
def test_whom_server_and_filter_see(clinics: list[Clinic], mode: str, transparency: str) -> None:
    clinic, recorder = gateway(clinics, RuleMode=mode, TransparentProxy=transparency)
    for version in (4, 6):
        send(clinic.net.client, SERVER[version])
        seen = recorder.seen()[-1]
        assert seen["peer"][0] == (CLIENT if transparency == "full" else WAN)[version]
        assert seen["message"].startswith(f"X-Way: {CLIENT[version]} to {SERVER[version]}\r\n")


@pytest.mark.parametrize("mode", ["redirect", "tproxy"])
def test_mail_of_the_box_itself(clinics: list[Clinic], mode: str) -> None:
    clinic, recorder = gateway(clinics, RuleMode=mode, TransparentProxy="client", RuleLocal="on")
    for version in (4, 6):
        run(clinic.gateway, sys.executable, "-c", SEND, SERVER[version])
        assert recorder.seen()[-1]["message"].startswith(f"X-Way: {WAN[version]} to {SERVER[version]}\r\n")
    # Once each: the daemon's own connections went straight to the server.
    assert len(recorder.seen()) == 2


@pytest.mark.parametrize("mode", ["redirect", "tproxy"])
def test_a_connection_straight_to_the_listener_is_refused(clinics: list[Clinic], mode: str) -> None:
    clinic, recorder = gateway(clinics, RuleMode=mode, TransparentProxy="client")
    for version in (4, 6):
        with closing(open_socket(clinic.net.client, socket.AF_INET6 if version == 6 else socket.AF_INET)) as link:
            link.settimeout(20)
            link.connect((LAN[version], 10025))
            said = b""
            while chunk := link.recv(512):
                said += chunk
            assert said.startswith(b"421 ")
    assert recorder.seen() == []
    assert clinic.instance.log.count("no original destination") == 2


def test_loopback_mode_behind_the_rules(clinics: list[Clinic]) -> None:
    clinic, recorder = gateway(clinics, OutAddress="2525")
    home = Recorder()
    for version in (4, 6):
        inside(clinic.net.client, lambda address=CLIENT[version]: home.listen(address, 2525))  # type: ignore[misc]
        send(clinic.net.client, SERVER[version])
        assert home.seen()[-1]["peer"][0] == LAN[version]
        assert home.seen()[-1]["message"].startswith(f"X-Way: {CLIENT[version]} to ")
    assert recorder.seen() == []
