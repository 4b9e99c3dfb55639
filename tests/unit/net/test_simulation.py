"""`explain` gives the daemon's answer: whatever is configured, and whatever is known of the client."""

from __future__ import annotations

import time
from ipaddress import ip_network
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxsmtp_tp.config.filter_lines import Failure, FilterLine, MemberType, Mode
from proxsmtp_tp.config.rates import AtOnce, LockReply, RateLimit
from proxsmtp_tp.config.settings import FilterType, Settings, TransparentProxy
from proxsmtp_tp.config.tls_lines import parse_tls, parse_upstream
from proxsmtp_tp.net.client_limits import WorkerLimits
from proxsmtp_tp.net.client_table import WINDOW, ClientTable, Word
from proxsmtp_tp.net.gcra import SECOND
from proxsmtp_tp.net.limit_decision import ADMINISTRATOR, WORDS
from proxsmtp_tp.net.serving import is_served, session_options
from proxsmtp_tp.net.simulation import CLOSED, Question, SimulatedLimits, simulate
from proxsmtp_tp.service.limit_commands import client_state, explanation
from proxsmtp_tp.session import effects, events
from proxsmtp_tp.session.session import Session
from proxsmtp_tp.smtp import answers
from proxsmtp_tp.tls.client_hello import ClientHello
from proxsmtp_tp.tls.facts import Side, TlsFacts, Verified

CLIENT, SERVER = "192.0.2.7", "198.51.100.25"
KEY = bytes(10) + b"\xff\xff\xc0\x00\x02\x07"
NOW, WALL = 10**15, 1_795_000_000
ENVELOPE = ("a@client.example", "b@mx.example")
REFUSED_INSIDE = "421 4.7.5 The certificate of the server is not verified"

RATES = st.none() | st.builds(
    RateLimit, st.integers(1, 9), st.sampled_from([1, 60, 3600]), st.integers(1, 9), shadow=st.booleans()
)
NETWORKS = st.sampled_from([(), (ip_network("192.0.2.0/24"),), (ip_network("203.0.113.0/24"),)])
LINES = st.builds(
    FilterLine,
    st.sampled_from(["a", "b", "c"]),
    st.just(MemberType.PIPE),
    st.just("cat"),
    skip=NETWORKS,
    skip_authenticated=st.booleans(),
    mode=st.sampled_from(Mode),
    failure=st.sampled_from(Failure),
)
SETTINGS: st.SearchStrategy[Settings] = st.builds(
    Settings,
    transparent_proxy=st.sampled_from(TransparentProxy),
    filter_command=st.sampled_from([None, "cat"]),
    filter_type=st.sampled_from(FilterType),
    filter=st.lists(LINES, max_size=3, unique_by=lambda line: line.name).map(tuple),
    clients=NETWORKS,
    client_except=NETWORKS,
    client_ipv4_prefix=st.just(32),
    lock_reply=st.sampled_from(LockReply),
    x_client=st.booleans(),
    tls=st.sampled_from([(), *map(parse_tls, ("strip", "terminate", "refuse", "pass"))]),
    tls_wrapped=st.sampled_from([(), (465,)]),
    upstream_tls=st.sampled_from(
        [(), *(parse_upstream(level) for level in ("may", "encrypt", "verify", "secure match=mx.example"))]
    ),
    message_size_limit=st.sampled_from([0, 1000]),
    client_connections=st.none() | st.builds(AtOnce, st.integers(1, 3), shadow=st.booleans()),
    **{limit.field: RATES for limit in WORDS},
)
STATES = st.lists(
    st.just(0) | st.integers(0, 20).map(lambda seconds: NOW + seconds * SECOND) | st.integers(0, NOW + 10**16),
    min_size=len(WORDS),
    max_size=len(WORDS),
)
LOCKED = st.just(0) | st.integers(WALL - 5, WALL + 5)
BITS = st.lists(st.integers(0, 2**64 - 1), min_size=2 * WINDOW, max_size=2 * WINDOW)
PERIODS = st.integers(0, 3)


class Daemon:
    """The parts of the daemon that answer a client, at one moment that does not pass."""

    def __init__(self, configured: Settings, state: list[int], until: int, servers: list[int], period: int) -> None:
        self.settings = configured
        self.table = ClientTable(8, 1)
        self.table.begin(0)
        with self.table.changing(KEY):
            slot = self.table.add(KEY)
            assert slot is not None
            for limit, value in zip(WORDS, state, strict=True):
                self.table.set(slot, Word[limit.name], value)
            self.table.set(slot, Word.LOCKED_UNTIL, until)
            self.table.set(slot, Word.LOCK_REASON, ADMINISTRATOR if until % 2 else 5)
            if configured.client_servers is not None:
                now = NOW // (configured.client_servers.period * SECOND)
                self.table.set(slot, Word.SERVERS_WINDOW, now - period)
            self.table._open[slot] = period  # as many connections as periods: only that they differ matters
            self.table.set_servers(slot, servers[:WINDOW], servers[WINDOW:])
        self.table.locks = 1 if until > WALL else 0

    def connect(self, bypassed: bool, port: int) -> Session:
        """As `Connection` does, with a server that accepts everything: the session past EHLO, ended, or passed on."""
        options = session_options(self.settings)
        session = Session(options, client_ip=CLIENT, local_ip="192.0.2.1", clock=lambda: "now")
        self.said = []
        self.passed = False
        session.expect_port(port)
        if not is_served(self.settings, CLIENT):
            self.take(session.refuse(answers.CLIENT_NOT_SERVED, "refused: its address is not in Clients"))
            return session
        session.use_limits(WorkerLimits(self.settings, self.table, 0, lambda _: None).enter(CLIENT))
        session.use_bypass(lambda: bypassed)
        self.take(session.check_limits(SERVER if self.settings.transparent else ""))
        if session.ended:
            return session
        begun = session.feed(events.Connected(SERVER, port))
        if any(isinstance(effect, effects.PeekClientHello) for effect in begun):
            self.begin_tls(session)
        if not self.is_over(session):
            session.feed(events.ServerData(b"220 mx\r\n"))
            self.say(session, "EHLO c.example")
        return session

    said: list[bytes]
    passed: bool
    """The client's TLS goes on to the server."""

    def is_over(self, session: Session) -> bool:
        """Whether nothing more is to be said."""
        return session.ended or self.passed

    def begin_tls(self, session: Session) -> None:
        """TLS from the first octet."""
        if session.ended:
            return
        given = session.feed(events.ClientHelloSeen(ClientHello("", (), (), False, b"")))
        self.passed = any(isinstance(effect, effects.PassTls) for effect in given)
        for effect in [each for each in given if isinstance(each, effects.StartServerTls)]:
            given = session.feed(events.TlsStarted(Side.SERVER, certified(effect)))
        if any(isinstance(effect, effects.StartClientTls) for effect in given):
            given = session.feed(events.TlsStarted(Side.CLIENT, TlsFacts("TLSv1.3", "")))
        self.take(given)

    def take(self, given: list[Any]) -> bytes:
        self.said = [effect.data for effect in given if isinstance(effect, effects.SendClient)]
        return b"".join(self.said)

    def say(self, session: Session, line: str) -> bytes:
        """What the client gets; b"" for the server's words."""
        given = session.feed(events.ClientData(f"{line}\r\n".encode()))
        if any(isinstance(effect, effects.StartFilter) for effect in given):
            return b"filter"
        asked = b"".join(effect.data for effect in given if isinstance(effect, effects.SendServer))
        own = self.take(given)
        if not asked:
            return own
        while asked:
            answer = b"250-mx\r\n250-STARTTLS\r\n250 XCLIENT ADDR\r\n" if asked[:4] == b"EHLO" else b"250 ok\r\n"
            answer = {b"XCLI": b"220 mx\r\n", b"DATA": b"354 go\r\n"}.get(asked[:4], answer)
            if own and session.ended:
                return own
            given = session.feed(events.ServerData(answer))
            for effect in [each for each in given if isinstance(each, effects.StartServerTls)]:
                given += session.feed(events.TlsStarted(Side.SERVER, certified(effect)))
            own = self.take(given)
            if own[:1] in {b"4", b"5"}:  # the server accepts everything
                return own
            asked = b"".join(effect.data for effect in given if isinstance(effect, effects.SendServer))
        return b""


def certified(effect: effects.StartServerTls) -> TlsFacts:
    """A trusted certificate for the name that the UpstreamTls line has, if it has one."""
    return TlsFacts("TLSv1.3", "", "", Verified.NAME if effect.rule.match else Verified.TRUSTED)


@given(SETTINGS, STATES, LOCKED, BITS, PERIODS, st.booleans(), st.sampled_from([25, 465]))
@settings(max_examples=300, deadline=None)
def test_the_answer_of_explain_is_the_answer_of_the_daemon(
    configured: Settings, state: list[int], until: int, servers: list[int], period: int, bypassed: bool, port: int
) -> None:
    with (
        mock.patch.object(time, "monotonic_ns", return_value=NOW),
        mock.patch.object(time, "time", return_value=WALL + 0.5),
    ):
        daemon = Daemon(configured, state, until, servers, period)
        copy = client_state(configured, CLIENT, SERVER, daemon.table)
        question = Question(CLIENT, SERVER, *ENVELOPE, bypassed=bypassed, port=port)
        told = simulate(configured, question, SimulatedLimits(configured, copy))
        session = daemon.connect(bypassed, port)
        real: dict[str, str] = {}
        filtered = False
        if session.ended:
            real["connection"] = b"".join(daemon.said).decode().strip() or CLOSED
        elif daemon.passed:
            real["connection"] = ""
        else:
            real["connection"] = ""
            for step, line in (
                ("MAIL", f"MAIL FROM:<{ENVELOPE[0]}>"),
                ("RCPT", f"RCPT TO:<{ENVELOPE[1]}>"),
                ("DATA", "DATA"),
            ):
                answer = daemon.say(session, line)
                filtered = answer == b"filter"
                real[step] = "" if filtered else answer.decode().strip()
                if real[step]:
                    break
        assert (told.answers, told.filtered) == (real, filtered)


@given(SETTINGS, STATES, LOCKED, BITS, PERIODS)
@settings(max_examples=50, deadline=None)
def test_the_question_changes_nothing(
    configured: Settings, state: list[int], until: int, servers: list[int], period: int
) -> None:
    daemon = Daemon(configured, state, until, servers, period)
    slot = daemon.table.find(KEY)
    assert slot is not None
    before = daemon.table.state(slot), daemon.table.servers(slot), daemon.table.entries()
    for _ in range(3):
        copy = client_state(configured, CLIENT, SERVER, daemon.table)
        simulate(configured, Question(CLIENT, SERVER, *ENVELOPE), SimulatedLimits(configured, copy))
    assert (daemon.table.state(slot), daemon.table.servers(slot), daemon.table.entries()) == before


def step(answer: dict[str, Any], name: str) -> str:
    text = answer["answers"][name]
    assert isinstance(text, str)
    return text


@pytest.mark.parametrize(
    ("configured", "expected", "filtered"),
    [
        ({}, {"connection": "", "MAIL": "", "RCPT": "", "DATA": ""}, None),
        ({"filter_command": "cat"}, {"connection": "", "MAIL": "", "RCPT": "", "DATA": ""}, "pipe"),
        ({"filter_type": FilterType.REJECT}, {"connection": "", "MAIL": "530 5.7.0 Email Rejected"}, None),
        (
            {"clients": (ip_network("203.0.113.0/24"),)},
            {"connection": "554 5.7.1 Access denied: not one of the clients of this proxy"},
            None,
        ),
    ],
)
def test_without_limits(configured: dict[str, Any], expected: dict[str, str], filtered: str | None) -> None:
    answer = explanation(Settings(**configured), {"client": CLIENT, "server": SERVER})
    if expected.get("MAIL"):
        assert step(answer, "MAIL").startswith("530")
        assert answer["answers"].keys() == expected.keys()
    else:
        assert answer["answers"] == expected
    assert (answer["filter"] and answer["filter"]["type"]) == filtered


def test_a_destination_that_is_no_server_is_refused_as_by_the_daemon() -> None:
    configured = Settings(transparent_proxy=TransparentProxy.CLIENT)
    answer = explanation(configured, {"client": CLIENT, "server": "127.0.0.1"})
    assert step(answer, "connection").startswith("421 4.7.1 This is a transparent proxy")
    assert "loopback" in answer["reasons"][0]


def test_the_log_line_of_an_envelope_that_the_filter_cannot_take() -> None:
    configured = Settings(filter_command="cat")
    answer = explanation(configured, {"client": CLIENT, "server": SERVER, "from": "a b", "to": "x@y"})
    assert step(answer, "MAIL").startswith("501 5.1.7")


def test_a_limit_in_shadow_mode_is_reported() -> None:
    rate = RateLimit(1, 60, 1, shadow=True)
    table = ClientTable(8, 1)
    configured = Settings(client_messages=rate)
    limits = WorkerLimits(configured, table, 0, lambda _: None).enter(CLIENT)
    assert limits.message() is None
    copy = client_state(configured, CLIENT, SERVER, table)
    told = simulate(configured, Question(CLIENT, SERVER, *ENVELOPE), SimulatedLimits(configured, copy))
    assert told.answers == {"connection": "", "MAIL": "", "RCPT": "", "DATA": ""}
    assert any("would be refused" in reason for reason in told.reasons)


def test_who_is_not_counted_and_who_has_no_space_have_no_state() -> None:
    excepted = Settings(client_except=(ip_network(CLIENT),))
    assert client_state(excepted, CLIENT, SERVER, None) is None
    full = ClientTable(8, 1)
    full.begin(0)
    for number in range(8):
        assert full.enter(0, bytes([*bytes(15), number + 1])) is not None
    assert client_state(Settings(), CLIENT, SERVER, full) is None
    assert client_state(Settings(), CLIENT, SERVER, ClientTable(8, 1)) is not None


@pytest.mark.parametrize(
    ("lines", "upstream", "answered", "reason"),
    [
        (("terminate",), (), {"connection": "", "MAIL": "", "RCPT": "", "DATA": ""}, "TLS is terminated: "),
        (("pass",), (), {"connection": ""}, "TLS passed on, not judged"),
        (("refuse",), (), {"connection": CLOSED}, "TLS from the first octet is refused (Tls: refuse)"),
        (("pass name=a.example", "refuse"), (), {"connection": CLOSED}, "TLS is refused by the server name"),
        (("terminate",), ("verify",), {"connection": REFUSED_INSIDE}, "the server's certificate is trusted"),
    ],
)
def test_tls_from_the_first_octet(
    lines: tuple[str, ...], upstream: tuple[str, ...], answered: dict[str, str], reason: str
) -> None:
    rules = tuple(rule for line in lines for rule in parse_tls(line))
    levels = tuple(rule for line in upstream for rule in parse_upstream(line))
    configured = Settings(
        transparent_proxy=TransparentProxy.CLIENT,
        tls=rules,
        upstream_tls=levels,
        tls_wrapped=(465,),
        filter_command="cat",
    )
    told = simulate(configured, Question(CLIENT, SERVER, port=465), SimulatedLimits(configured, None))
    assert told.answers == answered
    assert told.filtered is ("DATA" in answered)
    assert any(reason in line for line in told.reasons), told.reasons
    clear = simulate(configured, Question(CLIENT, SERVER, port=25), SimulatedLimits(configured, None))
    assert not any("TLS" in line for line in clear.reasons) or upstream
