"""STARTTLS with Tls lines: what goes where in which order, and what ends the connection."""

from __future__ import annotations

from dataclasses import replace

import pytest

from proxsmtp_tp.config.tls_lines import parse_tls, parse_upstream
from proxsmtp_tp.filters.verdict import Action, Verdict
from proxsmtp_tp.session import effects, events
from proxsmtp_tp.session.effects import CloseClient, CloseServer, PassTls, PeekClientHello, RefuseTls
from proxsmtp_tp.session.options import Options
from proxsmtp_tp.session.state import Phase, Reason, Wait
from proxsmtp_tp.session.timing import NOOPS_LIMIT
from proxsmtp_tp.smtp import answers
from proxsmtp_tp.tls.client_hello import ClientHello
from proxsmtp_tp.tls.facts import Side, TlsFacts, Verified
from proxsmtp_tp.tls.levels import UpstreamPolicy
from proxsmtp_tp.tls.policy import TlsPolicy
from tests.unit.session.playbook import C, Playbook, S, client, fed, introduced, server

READY = "220 2.0.0 Ready to start TLS"
ANY = parse_upstream("may")[0]
NAME = "mx.example"


def options(*lines: str, upstream: tuple[str, ...] = (), **more: object) -> Options:
    """Options with these Tls and UpstreamTls lines."""
    rules = tuple(rule for line in lines for rule in parse_tls(line))
    levels = tuple(rule for line in upstream for rule in parse_upstream(line))
    return replace(Options(), tls=TlsPolicy(rules), upstream_tls=UpstreamPolicy(levels), **more)  # type: ignore[arg-type]


TERMINATE = options("terminate")
PASS = options("pass")
OFFERS = ("STARTTLS", "SIZE", "AUTH PLAIN LOGIN")


def hello(name: str = NAME, *, ech: bool = False) -> events.ClientHelloSeen:
    """A client's hello."""
    return events.ClientHelloSeen(ClientHello(name, (), (0x0304,), ech, b"\x16\x03\x01"))


def tls(side: Side, verified: Verified = Verified.NO) -> events.TlsStarted:
    """The handshake of one side is complete."""
    return events.TlsStarted(side, TlsFacts("TLSv1.3", "TLS_AES_256_GCM_SHA384", NAME, verified))


def offered(given: Options = TERMINATE, *keywords: str) -> Playbook:
    """Past EHLO, with STARTTLS offered."""
    return introduced(given, *(keywords or OFFERS))


def ready(given: Options = TERMINATE) -> Playbook:
    """Past the server's 220."""
    return (
        offered(given)
        >> C("STARTTLS") << server("STARTTLS")
        >> S(READY) << client(READY) << PeekClientHello()
    )  # fmt: skip


def terminated(given: Options = TERMINATE, verified: Verified = Verified.NO) -> Playbook:
    """Both sides have TLS."""
    known = verified is not Verified.NO
    return (
        ready(given)
        >> hello() << effects.StartServerTls(NAME, given.upstream_tls.rule_for("198.51.100.25", 0))
        >> tls(Side.SERVER, verified) << effects.StartClientTls(verified=known)
        >> tls(Side.CLIENT)
    )  # fmt: skip


def within(play: Playbook, *keywords: str) -> Playbook:
    """Past EHLO within TLS; the client sees these keywords as the server has them."""
    lines = ["mx.example", *keywords]
    reply = "\n".join(f"250{' ' if at == len(lines) - 1 else '-'}{line}" for at, line in enumerate(lines))
    return play >> C("EHLO c") << server("EHLO c") >> S(reply) << client(reply)


# Before STARTTLS.


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


# Attack 1: octets of the client behind STARTTLS.


@pytest.mark.parametrize(
    "behind", [b"N", b"NOOP\r\n", b"\r\n", b"\x16\x03\x01", b"MAIL FROM:<evil@x>\r\nRCPT TO:<y@x>\r\n"]
)
def test_octets_in_the_same_segment_end_the_session(behind: bytes) -> None:
    play = offered() >> C(b"STARTTLS\r\n" + behind)
    assert play << client(answers.BEHIND_STARTTLS.wire) << server("QUIT") << CloseServer() << CloseClient()
    assert any("octets behind STARTTLS" in line for line in play.logged)


@pytest.mark.parametrize("behind", [b"N", b"NOOP\r\n", b"\r\n"])
def test_octets_before_the_reply_end_the_session_without_a_220(behind: bytes) -> None:
    play = offered() >> C("STARTTLS") << server("STARTTLS") >> C(behind)
    assert play >> S(READY) << CloseServer(abort=True) << client(answers.BEHIND_STARTTLS.wire) << CloseClient()


def test_octets_after_the_220_are_no_command() -> None:
    assert ready() >> C("NOOP") << CloseServer(abort=True) << CloseClient()


def test_it_may_end_a_group() -> None:
    play = offered(TERMINATE, "PIPELINING", "STARTTLS")
    assert (
        play
        >> C("RSET\nSTARTTLS") << server("RSET\nSTARTTLS")
        >> S("250 ok") << client("250 ok")
        >> S(READY) << client(READY) << PeekClientHello()
    )  # fmt: skip


def test_a_group_gets_its_replies_before_the_end() -> None:
    play = offered(TERMINATE, "PIPELINING", "STARTTLS")
    assert (
        play
        >> C("RSET\nSTARTTLS\nNOOP") << server("RSET")
        >> S("250 ok") << client(b"250 ok\r\n" + answers.BEHIND_STARTTLS.wire) << server("QUIT")
        << CloseServer() << CloseClient()
    )  # fmt: skip


# Attack 2: octets of the server behind its 220.


@pytest.mark.parametrize("behind", [b"2", b"\r\n", b"250 ok\r\n", b"250-mx\r\n250 AUTH PLAIN\r\n", b"\x16\x03"])
def test_octets_after_the_220_end_the_session(behind: bytes) -> None:
    play = offered() >> C("STARTTLS") << server("STARTTLS")
    assert (
        play
        >> S(READY.encode() + b"\r\n" + behind)
        << CloseServer(abort=True) << client(answers.SERVER_BEHIND_STARTTLS.wire) << CloseClient()
    )  # fmt: skip


@pytest.mark.parametrize("behind", [b"2", b"250 ok\r\n"])
def test_so_do_octets_that_come_later(behind: bytes) -> None:
    assert ready() >> S(behind) << CloseServer(abort=True) << CloseClient()
    play = ready() >> hello() << effects.StartServerTls(NAME, ANY)
    assert play >> S(behind) << CloseServer(abort=True) << CloseClient()


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


# Pass.


def passing() -> Playbook:
    """The client's TLS is passed on."""
    return ready(PASS) >> hello() << PassTls()


def test_pass_ends_with_one_line() -> None:
    play = passing() >> events.PassingEnded(1200, 3400) << CloseServer() << CloseClient()
    assert play
    assert (
        sum("TLS passed on, not judged (Tls: pass): from_client=1200, from_server=3400" in line for line in play.logged)
        == 1
    )


def test_what_is_no_tls_resets_both_sides() -> None:
    play = passing() >> events.PassingEnded(12, 34, "the server sends no TLS record")
    assert play << CloseServer(abort=True) << CloseClient(reset=True)


@pytest.mark.parametrize("reason", list(Reason))
def test_a_passed_connection_goes_on_until_shutdown(reason: Reason) -> None:
    play = passing() >> events.WindDown(reason)
    if reason is Reason.AGE:
        assert play << CloseServer(abort=True) << CloseClient(reset=True)
    else:
        assert play >> events.Shutdown() << CloseServer(abort=True) << CloseClient(reset=True)


def test_an_idle_passed_connection_ends() -> None:
    play = passing() >> events.DeadlinePassed(Wait.PASSING)
    assert play << CloseServer(abort=True) << CloseClient(reset=True)


# Each failure.


def test_a_server_whose_tls_fails_is_named_within_the_clients_own() -> None:
    play = ready() >> hello() << effects.StartServerTls(NAME, ANY)
    last = answers.closing(answers.UPSTREAM_TLS_FAILED)
    assert (
        play
        >> events.TlsFailed(Side.SERVER, "handshake failure") << CloseServer(abort=True)
        << effects.StartClientTls(verified=False)
        >> events.ServerClosed()
        >> tls(Side.CLIENT) << client(last.wire) << CloseClient()
    )  # fmt: skip
    assert last.wire.startswith(b"421 4.7.5 ")


@pytest.mark.parametrize(
    ("level", "verified", "goes_on"),
    [
        ("may", Verified.NO, True),
        ("may", Verified.TRUSTED, True),
        ("encrypt", Verified.NO, True),
        ("verify", Verified.NO, False),
        ("verify", Verified.TRUSTED, False),
        ("verify", Verified.NAME, True),
        ("secure match=mx.example", Verified.NO, False),
        ("secure match=mx.example", Verified.NAME, True),
    ],
)
def test_the_level_decides_about_the_servers_certificate(level: str, verified: Verified, goes_on: bool) -> None:
    given = options("terminate", upstream=(level,))
    play = ready(given) >> hello() << effects.StartServerTls(NAME, parse_upstream(level)[0])
    play = play >> tls(Side.SERVER, verified)
    if goes_on:
        assert play << effects.StartClientTls(verified=verified is not Verified.NO)
        return
    play = play << CloseServer(abort=True) << effects.StartClientTls(verified=False)
    assert play >> tls(Side.CLIENT) << client(answers.closing(answers.UPSTREAM_NOT_VERIFIED).wire) << CloseClient()


def test_a_client_that_rejects_our_certificate_is_named() -> None:
    play = ready() >> hello() << effects.StartServerTls(NAME, ANY)
    play = play >> tls(Side.SERVER) << effects.StartClientTls(verified=False)
    reason = "unknown CA: the client rejects our certificate"
    assert play >> events.TlsFailed(Side.CLIENT, reason) << CloseServer(abort=True) << CloseClient()
    assert any(reason in line for line in play.logged)


def test_a_server_that_leaves_while_the_client_starts_tls() -> None:
    play = ready() >> hello() << effects.StartServerTls(NAME, ANY)
    play = play >> tls(Side.SERVER) << effects.StartClientTls(verified=False) >> events.ServerClosed()
    assert play >> tls(Side.CLIENT) << client(answers.SERVER_LOST.wire) << CloseClient()


STEPS = [
    (),
    (hello(),),
    (hello(), tls(Side.SERVER)),
]


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize(
    "event",
    [
        events.ClientClosed(half=True),
        events.ClientClosed(half=False),
        events.DeadlinePassed(Wait.HANDSHAKE),
        events.Shutdown(),
        events.Shutdown(by_administrator=True),
    ],
)
def test_nothing_is_said_in_clear_to_peers_that_expect_tls(
    steps: tuple[events.Event, ...], event: events.Event
) -> None:
    play = ready()
    assert play
    for step in steps:
        play.session.feed(step)
    assert play >> event << CloseServer(abort=True) << CloseClient()


@pytest.mark.parametrize("steps", STEPS[:2])
def test_a_server_that_leaves_before_tls_ends_the_session(steps: tuple[events.Event, ...]) -> None:
    play = ready()
    assert play
    for step in steps:
        play.session.feed(step)
    assert play >> events.ServerClosed() << CloseClient()


def test_a_client_that_has_left_gets_no_220() -> None:
    play = offered() >> C("STARTTLS") << server("STARTTLS") >> events.ClientClosed(half=True)
    assert play >> S(READY) << CloseServer(abort=True) << CloseClient()


def test_a_client_that_does_not_read_has_no_more_time_for_the_handshake() -> None:
    """It holds a place for handshakes, of which one client has few."""
    play = ready()
    assert play
    play.session.feed(events.ClientFull(full=True))
    assert play.session._d.current_wait() is Wait.HANDSHAKE
    play.session.feed(events.DeadlinePassed(Wait.HANDSHAKE))
    assert play.session.ended


def test_the_handshake_has_a_deadline() -> None:
    play = ready()
    assert play
    assert play.session._d.current_wait() is Wait.HANDSHAKE
    play.session.feed(hello())
    assert play.session._d.current_wait() is Wait.HANDSHAKE


def test_tls_with_the_client_never_comes_first() -> None:
    play = ready() >> hello() << effects.StartServerTls(NAME, ANY)
    assert play
    with pytest.raises(RuntimeError, match="before TLS with the server"):
        play.session.feed(tls(Side.CLIENT))


# Attack 3: what was said in clear is forgotten.


def test_all_that_was_said_before_is_forgotten() -> None:
    play = introduced(TERMINATE, "STARTTLS", "PIPELINING", "XFORWARD ADDR HELO", "AUTH CRAM-MD5", "SIZE 1000")
    assert (
        play
        >> C("AUTH CRAM-MD5") << server("AUTH CRAM-MD5")
        >> S("235 ok") << client("235 ok")
        >> C("XFORWARD ADDR=203.0.113.1 HELO=x") << server("XFORWARD ADDR=203.0.113.1 HELO=x")
        >> S("250 ok") << client("250 ok")
        >> C("MAIL FROM:<a@x>") << server("MAIL FROM:<a@x>")
        >> S("250 ok") << client("250 ok")
        >> C("RCPT TO:<b@y>") << server("RCPT TO:<b@y>")
        >> S("250 ok") << client("250 ok")
        >> C("STARTTLS") << server("STARTTLS")
        >> S(READY) << client(READY) << PeekClientHello()
        >> hello() << effects.StartServerTls(NAME, ANY)
        >> tls(Side.SERVER) << effects.StartClientTls(verified=False)
        >> tls(Side.CLIENT)
    )  # fmt: skip
    d = play.session._d
    fresh = introduced(TERMINATE)
    assert fresh
    assert d.envelope.sender is None
    assert not d.envelope.recipients
    assert (d.helo, d.remote, d.remote_helo) == (b"", b"", b"")
    assert not d.authenticated
    assert not d.capabilities.keywords
    assert not d.capabilities.pipelining
    assert not d.ours.forwarded
    assert not d.sync
    # Not in groups any more: the server has not offered that within TLS.
    assert play >> C("MAIL FROM:<a@x>\nRCPT TO:<b@y>") << server("MAIL FROM:<a@x>")


def test_the_client_is_told_by_xclient_again() -> None:
    given = options("terminate", xclient=True)
    play = Playbook(given)
    play.session.feed(events.Connected("198.51.100.25"))
    play.session.feed(S("220 mx"))
    told = "XCLIENT NAME=[UNAVAILABLE] ADDR=192.0.2.10"
    offers = "250-mx\n250-STARTTLS\n250 XCLIENT NAME ADDR"
    assert (
        play
        >> C("EHLO c") << server("EHLO c")
        >> S(offers) << server(told)
        >> S("220 mx") << server("EHLO c")
        >> S(offers) << client("250-mx\n250-STARTTLS\n250 XFILTERED")
        >> C("STARTTLS") << server("STARTTLS")
        >> S(READY) << client(READY) << PeekClientHello()
        >> hello() << effects.StartServerTls(NAME, ANY)
        >> tls(Side.SERVER) << effects.StartClientTls(verified=False)
        >> tls(Side.CLIENT)
        >> C("MAIL FROM:<a@x>") << client(answers.EHLO_FIRST.wire)
        >> C("EHLO c") << server("EHLO c")
        >> S("250-mx\n250 XCLIENT NAME ADDR") << server(told)
    )  # fmt: skip


def test_starttls_is_gone_within_tls_and_refused() -> None:
    play = terminated()
    assert (
        play
        >> C("EHLO c") << server("EHLO c")
        >> S("250-mx\n250-STARTTLS\n250 AUTH PLAIN") << client("250-mx\n250 AUTH PLAIN")
        >> C("STARTTLS") << client(answers.TLS_ALREADY.wire)
        >> C("AUTH PLAIN AGEAYg==") << server("AUTH PLAIN AGEAYg==")
    )  # fmt: skip


# Within TLS.


@pytest.mark.parametrize("verified", list(Verified))
def test_requiretls_needs_a_verified_server(verified: Verified) -> None:
    known = verified in {Verified.NAME, Verified.DANE}
    play = terminated(verified=verified)
    mail = "MAIL FROM:<a@x> REQUIRETLS"
    play = play >> C("EHLO c") << server("EHLO c") >> S("250-mx\n250-REQUIRETLS\n250 SIZE")
    if known:
        assert play << client("250-mx\n250-REQUIRETLS\n250 SIZE") >> C(mail) << server(mail)
    else:
        assert play << client("250-mx\n250 SIZE") >> C(mail) << client(answers.NO_REQUIRETLS.wire)


@pytest.mark.parametrize(
    ("offers", "seen"),
    [
        ("AUTH PLAIN EXTERNAL", "AUTH PLAIN"),
        ("AUTH EXTERNAL", None),
        ("AUTH SCRAM-SHA-256-PLUS SCRAM-SHA-256 PLAIN", "AUTH PLAIN"),
        ("AUTH SCRAM-SHA-256-PLUS SCRAM-SHA-256 SCRAM-SHA-1", "AUTH SCRAM-SHA-1"),
        ("AUTH SCRAM-SHA-256-PLUS SCRAM-SHA-256", "AUTH SCRAM-SHA-256"),
        ("AUTH=SCRAM-SHA-256-plus external login", "AUTH=login"),
        ("AUTH PLAIN LOGIN", "AUTH PLAIN LOGIN"),
    ],
)
def test_logins_that_are_bound_to_the_clients_own_tls_are_removed(offers: str, seen: str | None) -> None:
    play = terminated() >> C("EHLO c") << server("EHLO c") >> S(f"250-mx\n250-{offers}\n250 SIZE")
    assert play << client(f"250-mx\n250-{seen}\n250 SIZE" if seen else "250-mx\n250 SIZE")
    clear = offered(TERMINATE) >> C("EHLO c") << server("EHLO c") >> S(f"250-mx\n250-{offers}\n250 SIZE")
    assert clear << client(f"250-mx\n250-{offers}\n250 SIZE")


def test_a_drain_ends_the_session_after_the_handshake() -> None:
    play = ready() >> events.WindDown(Reason.STOP)
    assert play
    play = play >> hello() << effects.StartServerTls(NAME, ANY)
    play = play >> tls(Side.SERVER) << effects.StartClientTls(verified=False)
    assert (
        play
        >> tls(Side.CLIENT)
        << client(answers.SHUTTING_DOWN.wire)
        << server("QUIT")
        << CloseServer()
        << CloseClient()
    )
