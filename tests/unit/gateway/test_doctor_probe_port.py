"""The probe speaks SMTP in clear: it takes a port on which the daemon does, too."""

from __future__ import annotations

import pytest

from proxsmtp_tp.config.settings import Settings
from proxsmtp_tp.config.tls_lines import parse_tls
from proxsmtp_tp.gateway.doctor.findings import Setup
from proxsmtp_tp.gateway.plan import Options, make_plan


@pytest.mark.parametrize(
    ("ports", "wrapped", "line", "wanted"),
    [
        ((25,), (), "", 25),
        ((465, 25), (465,), "terminate", 25),
        ((465, 587, 25), (465,), "pass", 587),
        ((465,), (465,), "terminate", None),
        ((465, 25), (), "terminate", 465),
        ((465, 25), (465,), "", 465),  # without Tls lines TlsWrapped has no effect
    ],
)
def test_the_first_port_without_tls_from_the_first_octet(
    ports: tuple[int, ...], wrapped: tuple[int, ...], line: str, wanted: int | None
) -> None:
    settings = Settings(tls=parse_tls(line) if line else (), tls_wrapped=wrapped)
    plan = make_plan(Options("x", interfaces=("eth0",), ports=ports))
    assert Setup(settings, "/c", plan, None).probe_port == wanted  # type: ignore[arg-type]
