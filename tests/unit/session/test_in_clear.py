"""UpstreamTls encrypt and more: nothing goes in clear to such a server; the client may still ask for TLS."""

from __future__ import annotations

import pytest

from proxsmtp_tp.session.options import Options
from proxsmtp_tp.smtp import answers
from tests.unit.session.playbook import C, client, introduced, server
from tests.unit.session.test_starttls import options, terminated, within

MAIL = "MAIL FROM:<a@b.example>"
LEVELS = ["encrypt", "verify", "secure match=mx.example"]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("line", ["terminate", "pass", "refuse", "strip"])
def test_mail_and_logins_in_clear_are_refused(line: str, level: str) -> None:
    play = introduced(options(line, upstream=(level,), auth_without_tls=True), "STARTTLS", "AUTH PLAIN")
    refusal = client(answers.UPSTREAM_IN_CLEAR.wire)
    assert play >> C(MAIL) << refusal >> C("AUTH PLAIN AGEAYg==") << refusal >> C("NOOP") << server("NOOP")


def test_a_group_says_no_address_in_clear() -> None:
    play = introduced(options("terminate", upstream=("encrypt",)), "STARTTLS", "PIPELINING")
    play >> C(f"{MAIL}\nRCPT TO:<c@d.example>\nDATA") << client(answers.UPSTREAM_IN_CLEAR.wire * 2) << server("DATA")
    assert play


def test_where_the_server_has_no_starttls() -> None:
    play = introduced(options("terminate", upstream=("encrypt",)), "SIZE")
    assert play >> C(MAIL) << client(answers.UPSTREAM_TLS_NOT_OFFERED.wire)


@pytest.mark.parametrize(
    "given",
    [
        options("terminate"),
        options("terminate", upstream=("may",)),
        options("terminate", upstream=("dane",)),  # without a name there are no TLSA records
        options("terminate", upstream=("encrypt server=192.0.2.9",)),
        Options(),
    ],
)
def test_otherwise_mail_in_clear_passes(given: Options) -> None:
    assert introduced(given, "STARTTLS") >> C(MAIL) << server(MAIL)


def test_within_tls_mail_passes() -> None:
    play = within(terminated(options("terminate", upstream=("encrypt",))), "SIZE")
    assert play >> C(MAIL) << server(MAIL)
