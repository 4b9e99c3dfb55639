"""The clients of milter, clamd, spamd and rspamd: every end of a connection is an answer, or one named failure."""

from __future__ import annotations

import asyncio
import struct
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest
import uvloop

from proxsmtp_tp.config.addresses import UnixAddress
from proxsmtp_tp.config.filter_lines import parse_filter
from proxsmtp_tp.config.settings import Settings
from proxsmtp_tp.filters import milter
from proxsmtp_tp.filters.asking import READ_SIZE, read_whole
from proxsmtp_tp.filters.limit import ProcessLimit
from proxsmtp_tp.filters.mail import Mail
from proxsmtp_tp.filters.member import FilterFailedError
from proxsmtp_tp.filters.parts import Parts
from proxsmtp_tp.filters.spool_space import SpoolSpace
from proxsmtp_tp.filters.streams import Stream
from proxsmtp_tp.filters.table import make_filter
from proxsmtp_tp.filters.types import TYPES as MEMBERS
from proxsmtp_tp.filters.verdict import Action
from tests.child_processes import child_processes
from tests.unit.filters import filter_harness
from tests.unit.filters.member_harness import TEXT, judge, request, server
from tests.unit.filters.protocols.milter_peer import CONTINUE, options, packet

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

    from proxsmtp_tp.config.filter_lines import FilterLine
    from proxsmtp_tp.filters.verdict import Verdict

LARGE = TEXT + b"The quick brown fox jumps over the lazy dog, and over it again.\r\n" * 200_000
"""More than sockets hold on the way."""
TYPES = ["milter", "clamd", "spamd", "rspamd"]


def run(
    path: Path, kind: str, handler: Callable[..., Coroutine[Any, Any, None]], text: bytes = TEXT, settings: str = ""
) -> Any:
    async def case() -> Any:
        async with server(path, handler) as address:
            return await judge(f"x {kind} {address} {settings}", text, str(path.parent))

    return asyncio.run(case())


class Recorder:
    """A reader of an answer: what it is given at once, and whether others had their turn in between."""

    outcome = None

    def __init__(self, octets: int) -> None:
        self._missing = octets
        self.sizes: list[int] = []
        self.turns = 0
        self.waited: list[int] = []

    @property
    def done(self) -> bool:
        return not self._missing

    def feed(self, data: bytes) -> None:
        self._missing -= len(data)
        self.sizes.append(len(data))
        self.waited.append(self.turns)
        asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self.turns += 1

    def closed(self) -> None:
        raise AssertionError


async def hear(stream: Stream, recorder: Any) -> None:
    while not recorder.done:
        await milter._hear(stream, recorder)


@pytest.mark.parametrize("read", [read_whole, hear])
def test_a_flood_of_an_answer_is_read_in_turns(read: Callable[[Stream, Any], Coroutine[Any, Any, None]]) -> None:
    """What was read ahead comes without waiting: other connections are served in between."""

    async def case() -> Recorder:
        stream = Stream(UnixAddress("/x"))
        stream.data_received(b"x" * 131072)
        recorder = Recorder(131072)
        await read(stream, recorder)
        return recorder

    seen = asyncio.run(case())
    assert max(seen.sizes) == READ_SIZE <= 16384
    assert seen.waited == list(range(len(seen.sizes)))


def saying(octets: bytes) -> Callable[..., Coroutine[Any, Any, None]]:
    """A server that says this, and reads until the end."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(octets)
        while await reader.read(65536):
            pass

    return handler


async def clamd(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """It finds a virus in messages with the word virus, and refuses more than a megabyte."""
    assert await reader.readuntil(b"\0") == b"zINSTREAM\0"
    text = b""
    while size := struct.unpack(">I", await reader.readexactly(4))[0]:
        text += await reader.readexactly(size)
        if len(text) > 1_000_000:
            writer.write(b"INSTREAM size limit exceeded. ERROR\0")
            return
    writer.write(b"stream: Bad.Thing FOUND\0" if b"virus" in text else b"stream: OK\0")


def test_clamd(tmp_path: Path) -> None:
    judged = run(tmp_path / "s", "clamd", clamd)
    assert (judged.judgement.action, judged.text) == (Action.PASS, TEXT)
    judged = run(tmp_path / "s", "clamd", clamd, TEXT + b"a virus\r\n")
    assert judged.judgement.action is Action.REJECT
    assert judged.judgement.reply.wire == b"554 5.7.1 Virus found: Bad.Thing\r\n"


def test_clamd_over_its_limit_is_never_clean(tmp_path: Path) -> None:
    with pytest.raises(FilterFailedError, match=r"larger than StreamMaxLength|before it had read the whole message"):
        run(tmp_path / "s", "clamd", clamd, LARGE)


@pytest.mark.parametrize("octets", [b"stream: OK\0", b"stream: OK"])
def test_an_answer_before_the_end_of_the_message(tmp_path: Path, octets: bytes) -> None:
    async def answers_early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(octets)
        await writer.drain()
        await reader.read(1)

    with pytest.raises(FilterFailedError):
        run(tmp_path / "s", "clamd", answers_early, LARGE)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("octets", [b"garbage\r\n\r\n" * 3, b"\0" * 20, b"x" * 200_000, b""])
def test_garbage(tmp_path: Path, kind: str, octets: bytes) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(octets)
        writer.write_eof()
        while await reader.read(65536):
            pass

    with pytest.raises(FilterFailedError):
        run(tmp_path / "s", kind, handler)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("text", [TEXT, LARGE])
def test_closed_at_once(tmp_path: Path, kind: str, text: bytes) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)

    with pytest.raises(FilterFailedError, match=r"closed|reset"):
        run(tmp_path / "s", kind, handler, text)


@pytest.mark.parametrize("kind", TYPES)
def test_a_port_without_a_listener(tmp_path: Path, kind: str) -> None:
    with pytest.raises(FilterFailedError) as raised:
        asyncio.run(judge(f"x {kind} {tmp_path}/missing", directory=str(tmp_path)))
    assert raised.value.unreachable


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("reads", [True, False])
def test_cancelled_while_the_server_is_silent(tmp_path: Path, kind: str, reads: bool) -> None:
    """The chain's time limit ends the question; nothing is left, also of a message that the server does not read."""
    begun = asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        begun.set()
        if reads:
            while await reader.read(65536):
                pass
        else:
            await done.wait()

    async def case() -> None:
        async with server(tmp_path / "s", handler) as address:
            task = asyncio.create_task(judge(f"x {kind} {address}", LARGE, str(tmp_path)))
            await begun.wait()
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            done.set()

    done = asyncio.Event()
    asyncio.run(case())


def test_the_next_address_is_used(tmp_path: Path) -> None:
    async def case() -> None:
        async with server(tmp_path / "s", clamd) as address:
            judged = await judge(f"x clamd {tmp_path}/missing,{address}", directory=str(tmp_path))
            assert judged.judgement.detail == "clean"

    asyncio.run(case())


class Lost:
    """A text of which the disk gives back the beginning only."""

    size = 10_000

    def at(self, start: int, _size: int) -> bytes:
        if start:
            raise OSError(5, "lost")
        return TEXT

    def close(self) -> None: ...


@pytest.mark.parametrize("kind", ["clamd", "spamd", "rspamd"])
def test_a_message_that_is_lost(tmp_path: Path, kind: str) -> None:
    """The disk fails: the filter gets no complete question, and the failure is the disk's."""

    async def main() -> None:
        async with server(tmp_path / "s", saying(b"")) as address:
            (line,) = parse_filter(f"x {kind} {address}")
            member = MEMBERS[line.type](line, Parts(SpoolSpace(str(tmp_path)), ProcessLimit(1)))
            await member.judge(Mail.of(Lost()), request())

    with pytest.raises(OSError, match="lost"):
        asyncio.run(main())


# spamd.


async def agreeing_milter(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """It wants every event, and goes on."""
    while head := await reader.read(1):
        (size,) = struct.unpack(">I", head + await reader.readexactly(3))
        code = (await reader.readexactly(size))[:1]
        if code not in b"DQA":
            writer.write(options() if code == b"O" else packet(CONTINUE))


def spamd(
    head: bytes, change: Callable[[bytes], bytes] = lambda text: text
) -> Callable[..., Coroutine[Any, Any, None]]:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.readuntil(b"\r\n\r\n")
        size = int(asked.split(b"Content-length: ")[1].split(b"\r\n")[0])
        text = await reader.readexactly(size)
        if asked.startswith(b"PROCESS"):
            text = change(text)
            writer.write(b"SPAMD/1.1 0 EX_OK\r\nContent-length: %d\r\n" % len(text) + head + b"\r\n\r\n" + text)
        else:
            writer.write(b"SPAMD/1.1 0 EX_OK\r\n" + head + b"\r\n\r\n")

    return handler


HAM, SPAM = b"Spam: False ; 1.2 / 5.0", b"Spam: True ; 12.5 / 5.0"


def test_spamd_passes_the_same_octets(tmp_path: Path) -> None:
    judged = run(tmp_path / "s", "spamd", spamd(HAM))
    assert (judged.judgement.edits, judged.text) == ((), TEXT)


def rows(directory: Path) -> tuple[FilterLine, ...]:
    """A filter of each kind."""
    worker = r"""printf 'proxsmtp-worker=1\n\n'
        while read -r line; do case $line in
            size=*) size=${line#size=} ;;
            "") head -c "$size" >/dev/null; printf 'action=pass\n\n' ;;
        esac; done"""
    (directory / "worker.sh").write_text(worker)
    lines = ["p pipe cat", "f file true", f"w worker exec sh {directory}/worker.sh"]
    lines += [f"{kind} {kind} {directory}/{kind}" for kind in ("clamd", "milter", "spamd")]
    return tuple(row for line in lines for row in parse_filter(line))


@pytest.mark.parametrize(
    "text",
    [
        b"Subject: \xe4\xff\r\nX:\ty \r\n\r\n\0 body \xff\0\r\n.dot\r\n..\r\n\r\n",
        b"Subject: x\r\n\r\nno end of line",
        b"no header \0\xff",
        b"X: y\r\n" + b"\0\xff\r\n" * 100_000,
    ],
)
def test_filters_in_a_row_leave_every_octet(tmp_path: Path, text: bytes) -> None:
    """A message that none of them changed: its signatures stay valid."""

    async def case() -> tuple[Verdict, bytes]:
        async with AsyncExitStack() as servers:
            for name, handler in (("clamd", clamd), ("milter", agreeing_milter), ("spamd", spamd(HAM))):
                await servers.enter_async_context(server(tmp_path / name, handler))
            chain = make_filter(Settings(filter=rows(tmp_path), temp_directory=str(tmp_path)))
            assert chain is not None
            try:
                return await filter_harness.judge(chain, text)
            finally:
                chain.close()
                await filter_harness.until(lambda: not child_processes(), "every process is reaped")

    verdict, passed = asyncio.run(case())
    assert [each.verdict for each in verdict.judged] == ["pass"] * 6, verdict
    assert passed == text
    assert verdict.envelope is None


def test_spamd_marks(tmp_path: Path) -> None:
    def mark(text: bytes) -> bytes:
        assert b"X-Envelope-To: <b@example.org>\r\n" in text
        text = text.replace(b"Subject: hello", b"Subject: [SPAM] hello").replace(b"\r\n", b"\n")
        return b"X-Spam-Status: Yes,\n\tscore=12\n" + text

    judged = run(tmp_path / "s", "spamd", spamd(SPAM, mark))
    assert judged.text == b"X-Spam-Status: Yes,\r\n\tscore=12\r\n" + TEXT.replace(b"hello", b"[SPAM] hello")


def test_spamd_wraps_the_message(tmp_path: Path) -> None:
    judged = run(tmp_path / "s", "spamd", spamd(SPAM, lambda text: b"X-Spam: y\n\nreport\n" + text + b"end\n"))
    assert judged.text == b"X-Spam: y\r\n\r\nreport\r\n" + TEXT + b"end\r\n"  # without the envelope


def test_spamd_may_only_change_the_header(tmp_path: Path) -> None:
    text = b"X-Spam-Status: No, faked\r\nX-Spam-Flag: NO\r\nX-SPAM-FLAG: NO\r\n" + TEXT
    judged = run(tmp_path / "s", "spamd", spamd(SPAM), text, "edits=headers")
    assert judged.text == b"X-Spam-Status: Yes, score=12.5 required=5.0\r\nX-Spam-Flag: YES\r\n" + TEXT
    judged = run(tmp_path / "s", "spamd", spamd(SPAM), text, "edits=none")
    assert judged.text == text


@pytest.mark.parametrize(("reject", "action"), [("12.5", Action.REJECT), ("12.6", Action.PASS)])
def test_spamd_rejects_from_a_score_on(tmp_path: Path, reject: str, action: Action) -> None:
    assert run(tmp_path / "s", "spamd", spamd(SPAM), settings=f"reject={reject}").judgement.action is action


@pytest.mark.parametrize(
    "text", [b"", b"no header\r\n", b"\r\nbody\r\n", b"From a b\r\nA: b\r\n\r\nc\r\n", b"A: b\r\n"]
)
def test_spamd_gets_odd_messages_whole(tmp_path: Path, text: bytes) -> None:
    if not text:
        return
    assert run(tmp_path / "s", "spamd", spamd(HAM), text).text == text


# rspamd.


def rspamd(
    json: bytes, body: bytes | None = None, status: bytes = b"200 OK"
) -> Callable[..., Coroutine[Any, Any, None]]:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.readuntil(b"\r\n\r\n")
        for line in (b"IP: 192.0.2.7", b"Helo: client.example", b"From: <a@example.org>", b"Rcpt: <b@example.org>"):
            assert line + b"\r\n" in asked
        await reader.readexactly(int(asked.split(b"Content-Length: ")[1].split(b"\r\n")[0]))
        lines = b"Message-Offset: %d\r\n" % len(json) if body is not None else b""
        content = json + (body or b"")
        writer.write(b"HTTP/1.1 %s\r\nContent-Length: %d\r\n%s\r\n" % (status, len(content), lines) + content)

    return handler


def test_rspamd(tmp_path: Path) -> None:
    answer = b'{"action":"add header","score":7.0,"milter":{"add_headers":{"A":"b"}}}'
    judged = run(tmp_path / "s", "rspamd", rspamd(answer))
    assert judged.text == TEXT.replace(b"\r\n\r\n", b"\r\nA: b\r\nX-Spam: Yes\r\n\r\n")
    assert judged.judgement.detail == "add header, score=7.00"


def test_rspamd_with_a_new_body(tmp_path: Path) -> None:
    judged = run(tmp_path / "s", "rspamd", rspamd(b'{"action":"no action"}', b"new\nbody\n"))
    assert judged.text == TEXT.replace(b"Good morning.", b"new\r\nbody")


def test_rspamd_rejects(tmp_path: Path) -> None:
    judged = run(tmp_path / "s", "rspamd", rspamd(b'{"action":"reject","messages":{"smtp_message":"No"}}'))
    assert judged.judgement.reply.wire == b"554 5.7.1 No\r\n"


@pytest.mark.parametrize("status", [b"403 Forbidden", b"500 Internal", b"200"])
def test_rspamd_without_a_verdict(tmp_path: Path, status: bytes) -> None:
    with pytest.raises(FilterFailedError):
        run(tmp_path / "s", "rspamd", rspamd(b'{"error":"x"}', status=status))


# milter.


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_milter_gets_quit_at_the_end(tmp_path: Path, new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    said = bytearray()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            said.extend(data)
            if data[4:5] == b"O":
                writer.write(bytes.fromhex("0000000d 4f 00000006 000001ff 001ff7ff"))
            elif data.endswith(b"\0\0\0\1E"):
                writer.write(b"\0\0\0\1c")

    async def case() -> None:
        async with server(tmp_path / "s", handler) as address:
            assert (await judge(f"x milter {address}", directory=str(tmp_path))).text == TEXT

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(case())
    assert said.endswith(b"\0\0\0\1E" + b"\0\0\0\1Q")
