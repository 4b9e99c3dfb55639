"""FilterType smtp with real sockets: the message, the scanner's replies, and one verdict."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.config.addresses import InetAddress
from proxsmtp_tp.filters import endings, smtp
from proxsmtp_tp.filters.endings import Ending
from proxsmtp_tp.filters.scanner_connection import OUTPUT_HIGH
from proxsmtp_tp.filters.scanner_endings import REPLIES, ScannerEnding
from proxsmtp_tp.filters.spool import MEMORY_LIMIT
from proxsmtp_tp.filters.verdict import Action
from proxsmtp_tp.smtp.data import DataDecoder
from proxsmtp_tp.smtp.envelope import Envelope
from tests.unit.filters.filter_harness import jump, pass_through, until
from tests.unit.filters.scanner_harness import END, LARGE, LIMIT, STEPS, TEXT, begin, complete, judged, lead, scanning
from tests.unit.net.proxy_harness import Mx

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.filters.conftest import Run

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


def test_the_scanner_is_connected_to_when_the_message_is_complete(run: Run, tmp_path: Path) -> None:
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
def test_a_scanner_that_closes_is_no_verdict(run: Run, tmp_path: Path, step: str, way: str) -> None:
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
def test_a_scanner_that_does_not_answer_is_no_verdict(run_jumping: Run, tmp_path: Path, step: str) -> None:
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


def test_a_refused_xforward_is_logged_when_the_message_is_refused(
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
