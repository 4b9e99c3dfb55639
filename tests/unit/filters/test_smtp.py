"""FilterType smtp with real sockets: whatever a scanner does, there is one verdict, and nothing is left."""

from __future__ import annotations

import asyncio
import errno
import gc
import re
import socket
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.config.addresses import InetAddress, UnixAddress
from proxsmtp_tp.filters import endings, scanner_connection, smtp
from proxsmtp_tp.filters.endings import Ending
from proxsmtp_tp.filters.limit import ProcessLimit
from proxsmtp_tp.filters.scanner_connection import OUTPUT_HIGH, QUIT_GRACE
from proxsmtp_tp.filters.scanner_endings import REPLIES, ScannerEnding
from proxsmtp_tp.filters.smtp import SmtpFilter
from proxsmtp_tp.filters.spool import MEMORY_LIMIT, Spool
from proxsmtp_tp.filters.spool_space import SpoolSpace
from proxsmtp_tp.filters.verdict import Action
from proxsmtp_tp.smtp.data import DataDecoder
from proxsmtp_tp.smtp.envelope import Envelope
from tests.unit.filters.filter_harness import jump, pass_through, until
from tests.unit.filters.scanner_harness import END, LARGE, STEPS, TEXT, begin, complete, judged, lead, scanning
from tests.unit.net.proxy_harness import Mx, Peer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.unit.filters.conftest import Run

LIMIT = 100.0
LINE = b"The quick brown fox jumps over the lazy dog, again and again and again.\r\n"
FIVE_MEGABYTES = LINE * (5_000_000 // len(LINE))


# The message.

MESSAGES = [
    TEXT,
    b"",
    b".\r\n",
    b"\r\n.\r\n..\r\n...\r\n",
    b"a\r\n.",
    bytes(octet for octet in range(1, 256) if octet not in b"\r\n") + b"\r\n",
    b"x" * 100_000 + b"\r\n",
    LINE * 20_000,
]


@pytest.mark.parametrize("message", MESSAGES, ids=range(len(MESSAGES)))
def test_the_message_passes_as_it_was_written(run: Run, tmp_path: Path, message: bytes) -> None:
    """The scanner reads it byte for byte (a missing last line end excepted: SMTP has none), and so does the server."""

    async def scenario() -> None:
        async with Mx() as mx, scanning(mx, tmp_path) as filter_:
            case = begin(filter_)
            await case.write_in_pieces(message)
            case.finish()
            peer = await mx.greeted()
            await peer.line()
            await peer.say("250-scanner\n250 PIPELINING")
            for _ in range(4):
                await peer.line()
            await peer.say("250 a\n250 b\n250 c\n354 go")
            begun = len(peer.heard)
            decoder, read = DataDecoder(), b""
            while not decoder.done:
                assert await peer._more()
                read += decoder.feed(bytes(peer.heard[begun:]))
                begun = len(peer.heard)
            assert read == (message if message.endswith(b"\r\n") or not message else message + b"\r\n")
            await peer.say("250 2.0.0 clean")
            verdict, passed = await judged(case)
            assert verdict.action is Action.PASS
            assert passed == message
            assert await peer.text(b"QUIT\r\n")
            await peer.say("221 bye")
            assert await peer.rest() == b""

    run(scenario())


def test_the_scanner_is_met_with_a_complete_message(run: Run, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Mx() as mx, scanning(mx, tmp_path) as filter_:
            case = begin(filter_)
            case.write(TEXT)
            await pass_through(10)
            assert filter_.running == 0
            case.finish()
            assert filter_.running == 1
            peer = await lead(case, mx, "the message")
            await peer.say("250 clean")
            assert (await judged(case))[1] == TEXT
            peer.close()

    run(scenario())


def test_a_slow_scanner_does_not_hold_memory(run: Run, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Mx() as mx, scanning(mx, tmp_path) as filter_:
            case = begin(filter_)
            peer = await lead(case, mx, "the text")
            waiting = case.run._connection._transport.get_write_buffer_size()  # type: ignore[attr-defined]
            assert 0 < waiting <= OUTPUT_HIGH + smtp.CHUNK
            assert await peer.text()
            assert bytes(peer.heard).endswith(LARGE + b".\r\n")
            await peer.say("250 clean")
            verdict, passed = await judged(case)
            assert passed == LARGE
            assert verdict.size > MEMORY_LIMIT
            peer.close()

    run(scenario())


# What the scanner says.


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize(
    ("said", "action"),
    [
        ("554 5.7.1 no", Action.REJECT),
        ("451 4.7.1 later", Action.TEMPFAIL),
        ("421-4.3.2 going\n421 4.3.2 down", Action.TEMPFAIL),
    ],
)
def test_a_refusal_at_any_step(run: Run, tmp_path: Path, step: str, said: str, action: Action) -> None:
    async def scenario() -> None:
        async with Mx() as mx, scanning(mx, tmp_path) as filter_:
            case = begin(filter_)
            peer = await lead(case, mx, step)
            await peer.say(said)
            if step == "EHLO" and said.startswith("5"):
                assert (await peer.line()).startswith(b"HELO ")
                await peer.say(said)
            verdict, _ = await judged(case)
            assert verdict.reply is not None
            if step in {"the connection", "EHLO"}:
                assert verdict.reply == REPLIES[ScannerEnding.UNWILLING]
            else:
                told = {"4": "451 4.3.2 going down", "5": "554 5.7.1 no"}["4" if said[1] == "2" else said[0]]
                told = said if said.startswith("451") else told
                assert verdict.action is action
                assert verdict.reply.wire == told.encode() + b"\r\n"
                assert verdict.said == told
            if step == "the text":
                assert END not in await peer.rest()
            else:
                assert await peer.text(b"QUIT\r\n")
            peer.close()

    run(scenario())


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("way", ["close", "reset", "finish"])
def test_a_scanner_that_goes_is_no_verdict(run: Run, tmp_path: Path, step: str, way: str) -> None:
    async def scenario() -> None:
        async with Mx() as mx, scanning(mx, tmp_path) as filter_:
            case = begin(filter_)
            peer = await lead(case, mx, step)
            getattr(peer, way)()
            verdict, _ = await judged(case)
            assert verdict.action is Action.TEMPFAIL
            early = step == "the connection"  # a reset may come before we know that the connection stands
            possible = {ScannerEnding.LOST, ScannerEnding.UNREACHABLE} if early else {ScannerEnding.LOST}
            assert verdict.reply in {REPLIES[ending] for ending in possible}
            assert verdict.said == ""

    run(scenario())


@pytest.mark.parametrize("step", STEPS)
def test_silence_is_no_verdict(run_jumping: Run, tmp_path: Path, step: str) -> None:
    async def scenario() -> None:
        async with Mx() as mx, scanning(mx, tmp_path, limit=LIMIT) as filter_:
            case = begin(filter_)
            peer = await lead(case, mx, step)
            jump(LIMIT * 0.9)
            await pass_through()
            assert case.owner.verdicts == []
            jump(LIMIT * 0.1)
            verdict, _ = await judged(case)
            assert verdict.reply == endings.REPLIES[Ending.TIMED_OUT]
            waited = {"another RCPT": "RCPT", "the text": "space for the message"}.get(step, step)
            assert verdict.detail.endswith(f"from the scanner, to {waited}")
            assert b"QUIT" not in await peer.rest()

    run_jumping(scenario())


def test_a_scanner_that_takes_more_has_more_time(run_jumping: Run, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Mx() as mx, scanning(mx, tmp_path, limit=LIMIT) as filter_:
            case = begin(filter_)
            peer = await lead(case, mx, "the text")
            connection = case.run._connection  # type: ignore[attr-defined]
            jump(LIMIT * 0.9)
            await pass_through()
            while connection.stalled:
                assert await peer._more()
                await pass_through()
            jump(LIMIT * 0.9)
            await pass_through()
            assert case.owner.verdicts == []
            case.abort()
            await peer.rest()

    run_jumping(scenario())


def test_the_limit_is_a_total_of_all_replies(run_jumping: Run, tmp_path: Path) -> None:
    """A reply in time does not start the time again."""

    async def scenario() -> None:
        async with Mx() as mx, scanning(mx, tmp_path, limit=LIMIT) as filter_:
            case = begin(filter_)
            peer = await lead(case, mx, "DATA")
            jump(LIMIT * 0.6)
            await peer.say("354 go")
            assert await peer.text()
            assert case.owner.verdicts == []
            jump(LIMIT * 0.5)
            assert (await judged(case))[0].reply == endings.REPLIES[Ending.TIMED_OUT]

    run_jumping(scenario())


def test_a_scanner_that_accepts_what_it_has_not_read(run: Run, tmp_path: Path) -> None:
    """Nothing unjudged passes."""

    async def scenario() -> None:
        async with Mx() as mx, scanning(mx, tmp_path) as filter_:
            case = begin(filter_)
            peer = await lead(case, mx, "the text")
            await peer.say("250 clean, surely")
            verdict, _ = await judged(case)
            assert verdict.reply == REPLIES[ScannerEnding.OUT_OF_STEP]
            assert END not in await peer.rest()

    run(scenario())


def test_an_invalid_reply_is_no_verdict(run: Run, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Mx() as mx, scanning(mx, tmp_path) as filter_:
            case = complete(filter_)
            peer = await mx.accept()
            await peer.say(b"SSH-2.0-OpenSSH_9.2\x1b\r\n")
            verdict, _ = await judged(case)
            assert verdict.reply == REPLIES[ScannerEnding.OUT_OF_STEP]

    run(scenario())


def test_who_was_refused_for_a_client_is_told_of_a_refused_xforward(
    run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with Mx() as mx, scanning(mx, tmp_path) as filter_:
            case = complete(filter_)
            peer = await mx.greeted()
            await peer.line()
            await peer.say("250-scanner\n250 XFORWARD ADDR")
            assert await peer.line() == b"XFORWARD ADDR=192.0.2.7"
            await peer.say("550 not you")
            await peer.line()
            await peer.say("550 no")
            assert (await judged(case))[0].action is Action.REJECT
            peer.close()

    run(scenario())
    assert "100001: the scanner refuses XFORWARD, which it offers: 550 not you" in caplog.text


# The client goes.


@pytest.mark.parametrize("step", STEPS)
def test_abort_at_any_step(run: Run, tmp_path: Path, step: str) -> None:
    async def scenario() -> None:
        async with Mx() as mx, scanning(mx, tmp_path) as filter_:
            case = begin(filter_)
            peer = await lead(case, mx, step)
            case.abort()
            case.abort()
            rest = await peer.rest()
            assert END not in rest
            assert b"QUIT" not in rest
            case.run.close()
            assert case.owner.verdicts == []

    run(scenario())


@pytest.mark.parametrize("turns", range(6))
def test_abort_while_the_connection_is_made(run: Run, tmp_path: Path, turns: int) -> None:
    async def scenario() -> None:
        async with Mx() as mx, scanning(mx, tmp_path) as filter_:
            case = complete(filter_)
            await pass_through(turns)
            case.abort()
            await until(lambda: filter_.running == 0, "it is given up")
            assert case.owner.verdicts == []
            gc.collect()  # a socket object that nobody closed is a warning, and so an error

    run(scenario())


def test_abort_after_the_verdict_lets_the_scanner_go_in_peace(run: Run, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Mx() as mx, scanning(mx, tmp_path) as filter_:
            case = begin(filter_)
            peer = await lead(case, mx, "the message")
            await peer.say("250 clean")
            await case.verdict()
            case.run.close()
            assert await peer.text(b"QUIT\r\n")
            assert filter_.running == 1
            await peer.say("221 bye")
            assert await peer.rest() == b""

    run(scenario())


def test_a_scanner_that_does_not_say_goodbye_is_not_waited_for_long(run_jumping: Run, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Mx() as mx, scanning(mx, tmp_path) as filter_:
            case = begin(filter_)
            peer = await lead(case, mx, "the message")
            await peer.say("250 clean")
            await judged(case)
            assert await peer.text(b"QUIT\r\n")
            jump(QUIT_GRACE)
            await until(lambda: filter_.running == 0, "we hang up")

    run_jumping(scenario())


def test_the_end_of_the_worker_closes_everything(run: Run, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Mx() as mx, scanning(mx, tmp_path) as filter_:
            cases = [complete(filter_) for _ in STEPS]
            peers = [await lead(case, mx, step) for case, step in zip(cases[:1], STEPS, strict=False)]
            leaving = complete(filter_)
            del leaving
            filter_.close()
            filter_.close()
            await until(lambda: filter_.running == 0, "all are closed")
            for peer in peers:
                await peer.rest()

    run(scenario())


# Where the scanner is.


@pytest.mark.parametrize("kind", ["v4", "v6", "unix", "name"])
def test_every_kind_of_address(run: Run, tmp_path: Path, kind: str) -> None:
    async def scenario() -> None:
        family, where = {
            "v4": (socket.AF_INET, ("127.0.0.1", 0)),
            "v6": (socket.AF_INET6, ("::1", 0)),
            "unix": (socket.AF_UNIX, str(tmp_path / "scanner")),
            "name": (socket.AF_INET, ("127.0.0.1", 0)),
        }[kind]
        async with Mx(family, where) as mx:  # type: ignore[arg-type]
            address = InetAddress("localhost", mx.port) if kind == "name" else mx.address
            async with scanning(address, tmp_path) as filter_:
                case = begin(filter_)
                peer = await lead(case, mx, "the message")
                await peer.say("250 clean")
                assert (await judged(case))[1] == TEXT
                peer.close()

    run(scenario())


def _refusing() -> InetAddress:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return InetAddress("127.0.0.1", sock.getsockname()[1])


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        (_refusing, "Connection refused"),
        (lambda: UnixAddress("/nonexistent/scanner"), "/nonexistent/scanner: No such file or directory"),
    ],
)
def test_no_scanner_is_no_verdict(
    run: Run, tmp_path: Path, address: Callable[[], InetAddress | UnixAddress], reason: str
) -> None:
    async def scenario() -> None:
        async with scanning(address(), tmp_path) as filter_:
            verdict, _ = await judged(complete(filter_))
            assert verdict.reply == REPLIES[ScannerEnding.UNREACHABLE]
            assert reason in verdict.detail

    run(scenario())


def test_a_name_that_is_not_known(run_jumping: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async def scenario() -> None:
        async with scanning(InetAddress("scanner.example", 25), tmp_path) as filter_:
            monkeypatch.setattr(socket, "getaddrinfo", unknown)
            verdict, _ = await judged(complete(filter_))
            assert verdict.reply == REPLIES[ScannerEnding.UNREACHABLE]
            assert verdict.detail.endswith("scanner.example: Name or service not known")

    run_jumping(scenario())


def test_every_address_of_a_name_is_tried(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with Mx() as mx, scanning(mx, tmp_path) as filter_:
            dead = _refusing()

            async def targets(_: object) -> list[tuple[int, tuple[str, int]]]:
                return [(socket.AF_INET, (dead.host, dead.port)), (socket.AF_INET, ("127.0.0.1", mx.port))]

            monkeypatch.setattr(scanner_connection, "_targets", targets)
            case = begin(filter_)
            peer = await lead(case, mx, "the message")
            await peer.say("250 clean")
            assert (await judged(case))[1] == TEXT
            peer.close()

    run(scenario())


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX])
@pytest.mark.parametrize("end", ["silence", "abort", "space"])
def test_a_full_queue(run_jumping: Run, tmp_path: Path, family: int, end: str) -> None:
    """The kernel drops SYNs to a TCP socket, and says EAGAIN for a unix socket (connect(2)): neither is the end."""

    async def scenario() -> None:
        with socket.socket(family) as listener:
            listener.bind(str(tmp_path / "scanner") if family == socket.AF_UNIX else ("127.0.0.1", 0))
            listener.listen(0)
            listener.setblocking(False)
            name = listener.getsockname()
            address = UnixAddress(name) if isinstance(name, str) else InetAddress(*name)
            first = socket.socket(family)
            first.connect(name)
            async with scanning(address, tmp_path, limit=LIMIT) as filter_:
                case = complete(filter_)
                await pass_through(10)
                assert case.owner.verdicts == []
                if end == "abort":
                    case.abort()
                elif end == "silence":
                    jump(LIMIT)
                    assert (await judged(case))[0].detail.endswith("from the scanner, to the connection")
                else:
                    loop = asyncio.get_running_loop()
                    (await loop.sock_accept(listener))[0].close()
                    sock, _ = await loop.sock_accept(listener)  # a dropped SYN is sent again after a second
                    peer = Peer(sock)
                    await peer.say("421 busy")
                    assert (await judged(case))[0].reply == REPLIES[ScannerEnding.UNWILLING]
                    peer.close()
                await until(lambda: filter_.running == 0, "it is given up")
            first.close()

    run_jumping(scenario())


def test_a_port_alone_is_no_place(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no host"):
        SmtpFilter(InetAddress("", 10024), LIMIT, SpoolSpace(str(tmp_path)), ProcessLimit(1))


@pytest.mark.parametrize(
    ("name", "said"),
    [("gw.example", b"gw.example"), ("", b"localhost"), ("a b\r\n", b"localhost"), ("gw\n", b"localhost")],
)
def test_our_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, said: bytes) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: name)
    assert SmtpFilter(UnixAddress("/run/x"), LIMIT, SpoolSpace(str(tmp_path)), ProcessLimit(1)).own_name == said


# TempDirectory.


def test_a_missing_directory_is_no_verdict(run: Run, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Mx() as mx, scanning(mx, tmp_path / "missing") as filter_:
            case = begin(filter_)
            case.write(b"x" * (MEMORY_LIMIT + 1))
            verdict, _ = await judged(case)
            assert verdict.reply == endings.REPLIES[Ending.SPOOL_MISSING]
            assert filter_.running == 0

    run(scenario())


def test_a_message_that_can_not_be_read_back(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    async def scenario() -> None:
        async with Mx() as mx, scanning(mx, tmp_path) as filter_:
            case = begin(filter_)
            peer = await lead(case, mx, "the message")
            monkeypatch.setattr(Spool, "complete", full)
            await peer.say("250 clean")
            assert (await judged(case))[0].reply == endings.REPLIES[Ending.DISK_FULL]
            peer.close()

    run(scenario())


# FilterProcesses.


def test_above_the_limit_messages_wait_in_order(run: Run, tmp_path: Path) -> None:
    """A place is free when its connection is closed, not when there is a verdict."""

    async def scenario() -> None:
        async with Mx() as mx, scanning(mx, tmp_path, connections=1) as filter_:
            cases = [complete(filter_, helo=b"client%d" % number) for number in range(4)]
            cases[2].abort()
            assert (filter_.running, filter_.waiting) == (1, 2)
            for case in (cases[0], cases[1], cases[3]):
                peer = await mx.greeted()
                await peer.line()
                await peer.say("250 XFORWARD")
                await peer.line()
                await peer.say("550 no")
                assert (await judged(case))[0].action is Action.REJECT
                assert await peer.line() == b"QUIT"
                assert filter_.running == 1
                peer.close()

    run(scenario())


def test_the_wait_in_line_is_bounded(run_jumping: Run, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Mx() as mx, scanning(mx, tmp_path, limit=LIMIT, connections=1) as filter_:
            first = complete(filter_)
            await lead(first, mx, "DATA")
            first.run._clock.stop()  # type: ignore[attr-defined]
            second = complete(filter_)
            jump(LIMIT)
            assert (await judged(second))[0].reply == endings.REPLIES[Ending.LINE_TIMED_OUT]
            third = complete(filter_)
            jump(LIMIT * 0.9)
            await pass_through()
            first.abort()
            peer = await lead(third, mx, "MAIL")
            jump(LIMIT * 0.9)  # its time for the scanner has only begun
            await pass_through()
            assert third.owner.verdicts == []
            await peer.say("550 no")
            assert (await judged(third))[0].action is Action.REJECT
            peer.close()

    run_jumping(scenario())


def test_who_gives_up_in_line_gives_way(run: Run, tmp_path: Path) -> None:
    """Also between the moment a place is given and the moment it is taken."""

    async def scenario() -> None:
        async with Mx() as mx, scanning(mx, tmp_path, connections=1) as filter_:
            holder, waiting, late = complete(filter_), complete(filter_), complete(filter_)
            await mx.accept()
            holder.abort()
            waiting.abort()
            peer = await lead(late, mx, "the message")
            await peer.say("250 clean")
            assert (await judged(late))[1] == TEXT
            peer.close()

    run(scenario())


class Judge:
    """A scanner with PIPELINING that says of message N what N asks for."""

    def __init__(self) -> None:
        self._lines = b""
        self._number = b""
        self._in_text = False

    def receive(self, data: bytes) -> bytes:
        self._lines += data
        said = b""
        while b"\r\n" in self._lines:
            line, self._lines = self._lines.split(b"\r\n", 1)
            said += self._answer(line)
        return said

    def _answer(self, line: bytes) -> bytes:
        if self._in_text:
            if line != b".":
                assert line.startswith(b"message " + self._number)
                return b""
            self._in_text = False
            return b"%d %s\r\n" % ((250, 550, 451)[int(self._number) % 3], self._number)
        verb = line[:4]
        if verb == b"EHLO":
            return b"250-judge\r\n250-XFORWARD HELO\r\n250 PIPELINING\r\n"
        if verb == b"XFOR":
            self._number = line.partition(b"HELO=")[2]
        if verb == b"DATA":
            self._in_text = True
            return b"354 go\r\n"
        return b"221 bye\r\n" if verb == b"QUIT" else b"250 ok\r\n"


@pytest.mark.parametrize("connections", [7, 100])
def test_a_hundred_at_once_each_with_its_own_verdict(run: Run, tmp_path: Path, connections: int) -> None:
    async def scenario() -> None:
        async with Mx() as mx, scanning(mx, tmp_path, connections=connections) as filter_:
            mx.serve(Judge)
            cases = [begin(filter_, helo=b"%d" % number) for number in range(100)]
            texts = [b"message %d\r\n" % number * 50 for number in range(100)]
            for case, text in zip(cases, texts, strict=True):
                case.write(text)
                case.finish()
            for number, (case, text) in enumerate(zip(cases, texts, strict=True)):
                verdict, passed = await judged(case)
                assert verdict.action is (Action.PASS, Action.REJECT, Action.TEMPFAIL)[number % 3]
                assert passed == (b"" if number % 3 else text)
                assert not number % 3 or verdict.said == f"{(250, 550, 451)[number % 3]} {number}"
                assert filter_.running <= connections
            await until(lambda: filter_.running == 0, "all have parted")

    run(scenario())


# A real one.


def test_aiosmtpd_as_a_scanner(run: Run, tmp_path: Path) -> None:
    """Its own reading of the dialogue: envelope, unstuffed text, replies at RCPT and at the end."""
    from aiosmtpd.smtp import SMTP

    seen = []

    class Handler:
        async def handle_RCPT(
            self, _server: object, _session: object, envelope: object, address: str, _options: object
        ) -> str:
            if address.startswith("nobody"):
                return "550 5.1.1 no such user"
            envelope.rcpt_tos.append(address)  # type: ignore[attr-defined]
            return "250 ok"

        async def handle_DATA(self, _server: object, _session: object, envelope: object) -> str:
            seen.append((envelope.mail_from, envelope.rcpt_tos, envelope.original_content))  # type: ignore[attr-defined]
            found = re.search(rb"EICAR", envelope.original_content)  # type: ignore[attr-defined]
            return "554 5.7.1 EICAR found" if found else "250 2.0.0 clean"

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: SMTP(Handler(), hostname="scanner", enable_SMTPUTF8=True, loop=loop), "127.0.0.1", 0
        )
        port = server.sockets[0].getsockname()[1]
        utf8 = Envelope("ü@example.com".encode(), b"BODY=8BITMIME SMTPUTF8", [b"bob@example.net"], [b""])
        null = Envelope(b"", b"", [b"bob@example.net"], [b""])
        mixed = Envelope(b"a@example.com", b"", [b"bob@example.net", b"nobody@example.net"], [b"", b""])
        eicar = b"Subject: x\r\n\r\nEICAR\r\n"
        async with scanning(InetAddress("127.0.0.1", port), tmp_path) as filter_:
            for envelope, text, said in (
                (utf8, TEXT, ""),
                (null, FIVE_MEGABYTES, ""),
                (null, eicar, "554 5.7.1 EICAR found"),
                (mixed, TEXT, "550 5.1.1 no such user"),
            ):
                case = begin(filter_, envelope=envelope)
                await case.write_in_pieces(text)
                case.finish()
                verdict, passed = await judged(case)
                assert verdict.said == said
                assert passed == (b"" if said else text)
            await until(lambda: filter_.running == 0, "all have parted")
        server.close()
        await server.wait_closed()
        assert seen == [
            ("ü@example.com", ["bob@example.net"], TEXT),
            ("<>", ["bob@example.net"], FIVE_MEGABYTES),
            ("<>", ["bob@example.net"], eicar),
        ]

    run(scenario())
