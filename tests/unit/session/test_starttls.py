"""STARTTLS with Tls lines: when it is offered and passed on, and what the client's hello decides."""

from __future__ import annotations

import pytest

from proxsmtp_tp.filters.verdict import Action, Verdict
from proxsmtp_tp.session import effects, events
from proxsmtp_tp.session.effects import CloseClient, CloseServer, PassTls, RefuseTls
from proxsmtp_tp.session.options import Options
from proxsmtp_tp.session.state import Phase
from proxsmtp_tp.session.timing import NOOPS_LIMIT
from proxsmtp_tp.smtp import answers
from proxsmtp_tp.tls.facts import Side, Verified
from tests.unit.session.playbook import C, Playbook, S, client, fed, introduced, server
from tests.unit.session.tls_playbook import (
    ANY,
    NAME,
    READY,
    TERMINATE,
    hello,
    offered,
    options,
    ready,
    terminated,
    tls,
    within,
)


@pytest.mark.parametrize("line", ["terminate", "pass", "refuse", "pass name=mx.example\nstrip", "terminate name=none"])
def test_starttls_is_shown_with_a_line_that_does_not_strip(line: str) -> None:
    play = introduced(options(*line.split("\n")), "SIZE")
    assert (
        play
        >> C("EHLO c")
        << server("EHLO c")
        >> S("250-mx\n250-AUTH PLAIN\n250 STARTTLS")
        << client("250-mx\n250-AUTH PLAIN\n250 STARTTLS")
    )


@pytest.mark.parametrize(
    "given",
    [
        Options(),
        options("strip"),
        options("terminate server=192.0.2.9", "strip"),
        options("strip client=192.0.2.0/24", "pass"),
    ],
)
def test_otherwise_it_is_removed_as_without_lines(given: Options) -> None:
    play = introduced(given, "SIZE")
    assert (
        play
        >> C("EHLO c") << server("EHLO c")
        >> S("250-mx\n250-AUTH PLAIN\n250 STARTTLS") << client("250-mx\n250 XFILTERED")
        >> C("STARTTLS") << client(answers.NO_TLS.wire)
    )  # fmt: skip


def test_the_port_of_the_server_counts() -> None:
    play = Playbook(options("strip submission port=587", "terminate"))
    play.session.feed(events.Connected("198.51.100.25", 587))
    play.session.feed(S("220 mx"))
    play >> C("EHLO c") << server("EHLO c") >> S("250-mx\n250 STARTTLS") << client("250-mx\n250 XFILTERED")
    assert play


def test_starttls_is_never_invented() -> None:
    play = offered(TERMINATE, "SIZE")
    assert play >> C("STARTTLS") << client(answers.TLS_NOT_OFFERED.wire) >> C("NOOP") << server("NOOP")


def test_it_takes_no_argument() -> None:
    assert offered() >> C("STARTTLS now") << client(answers.STARTTLS_SYNTAX.wire)


def test_refuse_ends_the_session_of_a_client_that_asks() -> None:
    play = offered(options("refuse"))
    assert (
        play
        >> C("STARTTLS") << client(answers.TLS_REFUSED.wire) << server("QUIT") << CloseServer() << CloseClient()
    )  # fmt: skip
    assert any("refused (Tls: refuse)" in line for line in play.logged)


def test_without_a_place_for_a_handshake_the_session_ends_and_nothing_goes_on_in_clear() -> None:
    """After 454 Postfix with level may would send its mail in clear, and a server that wants TLS would return it."""

    class Busy:
        def begin(self) -> str:
            return "too many"

        def end(self) -> None:
            """Nothing."""

    play = offered()
    play.session.use_handshakes(Busy())
    assert (
        play
        >> C("STARTTLS") << client(answers.closing(answers.TLS_BUSY).wire)
        << server("QUIT") << CloseServer() << CloseClient()
    )  # fmt: skip


def test_noops_of_ours_are_counted_over_starttls() -> None:
    """Servers count commands of a connection that carry no mail (Exim), in clear and within TLS together."""
    play = offered(options("terminate", filtered=True))
    begun: list[events.Event] = [C("MAIL FROM:<a@x>"), S("250 ok"), C("RCPT TO:<b@y>"), S("250 ok"), C("DATA")]
    kept: list[events.Event] = [events.KeepAlive(), S("250 ok")]
    ended: list[events.Event] = [
        C("text\n."),
        events.FilterVerdict(Verdict(Action.REJECT, answers.FILTER_FAILED, "no")),
        S("250 ok"),
    ]
    tls_begun: list[events.Event] = [
        C("STARTTLS"),
        S(READY),
        hello(),
        tls(Side.SERVER),
        tls(Side.CLIENT),
        C("EHLO c"),
        S("250 mx"),
    ]
    scenario = [*begun, *kept * NOOPS_LIMIT, *ended, *tls_begun, *begun, *kept[:1]]
    noops = 0
    for event in scenario:
        noops += fed(play.session, event).count(server("NOOP"))
    assert noops == NOOPS_LIMIT
    assert play.session._d.phase is Phase.DATA
    assert play


def test_refuse_lets_a_client_go_on_that_stays_in_clear() -> None:
    assert offered(options("refuse")) >> C("MAIL FROM:<a@x>") << server("MAIL FROM:<a@x>")


@pytest.mark.parametrize("reply", ["454 4.7.0 TLS not available", "501 5.5.2 What", "554-5.7.1 No\n554 no"])
def test_a_servers_refusal_is_passed_on_and_the_client_may_go_on(reply: str) -> None:
    play = offered() >> C("STARTTLS") << server("STARTTLS") >> S(reply) << client(reply)
    assert play >> C("NOOP") << server("NOOP")
    assert play.session._d.phase is Phase.COMMAND
    assert any("refuses STARTTLS" in line for line in play.logged)


@pytest.mark.parametrize("reply", ["334 x", "354 x"])
def test_no_other_reply_answers_it(reply: str) -> None:
    play = offered() >> C("STARTTLS") << server("STARTTLS")
    assert play >> S(reply) << CloseServer(abort=True) << client(answers.OUT_OF_STEP.wire) << CloseClient()


# The hello decides.


def test_terminate() -> None:
    play = within(terminated(), "SIZE")
    assert play >> C("MAIL FROM:<a@x>") << server("MAIL FROM:<a@x>") >> S("250 ok") << client("250 ok")
    assert any("client_tls=TLSv1.3, server_tls=TLSv1.3/unverified" in line for line in play.logged)


@pytest.mark.parametrize("verified", list(Verified))
def test_only_a_verified_server_gives_a_certificate_of_the_trusted_ca(verified: Verified) -> None:
    play = ready() >> hello() << effects.StartServerTls(NAME, ANY) >> tls(Side.SERVER, verified)
    assert play << effects.StartClientTls(verified=verified is not Verified.NO)


@pytest.mark.parametrize(
    ("name", "ech", "wanted"),
    [
        ("a.bank.example", False, [PassTls()]),
        ("bad.example", False, [RefuseTls(49), CloseServer(abort=True), CloseClient()]),
        ("", False, [effects.StartServerTls("", ANY)]),
        ("a.bank.example", True, [effects.StartServerTls("a.bank.example", ANY)]),  # the name may be a cover
        ("other.example", False, [effects.StartServerTls("other.example", ANY)]),
    ],
)
def test_the_name_decides(name: str, ech: bool, wanted: list[effects.Effect]) -> None:
    given = options("pass name=*.bank.example", "refuse name=bad.example", "terminate")
    play = ready(given) >> hello(name, ech=ech)
    for effect in wanted:
        play = play << effect
    assert play


def test_where_a_name_decides_for_strip_tls_is_refused() -> None:
    play = ready(options("pass name=good.example", "strip")) >> hello("bad.example")
    assert play << RefuseTls(49) << CloseServer(abort=True) << CloseClient()


def test_no_hello_ends_the_session() -> None:
    play = ready() >> events.ClientHelloFailed("it is a line of SMTP") << CloseServer(abort=True) << CloseClient()
    assert play
    assert any("does not begin TLS after STARTTLS: it is a line of SMTP" in line for line in play.logged)
