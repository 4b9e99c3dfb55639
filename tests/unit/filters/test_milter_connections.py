"""A milter gets the messages of one client on one connection; whatever ends it costs no message, and no answer is lost
or taken for another.
"""

from __future__ import annotations

import asyncio
import struct
from typing import TYPE_CHECKING, Any

import pytest

from proxsmtp_tp.config.filter_lines import parse_filter
from proxsmtp_tp.filters import milter_connections
from proxsmtp_tp.filters.limit import ProcessLimit
from proxsmtp_tp.filters.mail import Mail
from proxsmtp_tp.filters.member import FilterFailedError
from proxsmtp_tp.filters.milter import MilterMember
from proxsmtp_tp.filters.parts import Parts
from proxsmtp_tp.filters.spool import Spool
from proxsmtp_tp.filters.spool_space import SpoolSpace
from proxsmtp_tp.filters.verdict import Action
from proxsmtp_tp.smtp.envelope import Envelope
from tests.unit.filters import member_harness
from tests.unit.filters.filter_harness import until
from tests.unit.filters.protocols.milter_peer import options, packet

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from proxsmtp_tp.filters.member import Judgement

FIRST, NEXT = b"OCHMRTLLLNBE", b"AMRTLLLNBE"
ACCEPT, REJECT, TEMPFAIL, CONTINUE = (packet(code) for code in (b"a", b"r", b"t", b"c"))
SILENT = 0xFF080 & ~0x20000


class Milter:
    """`ends`: what it answers at the end of each message, in turn; the last one is repeated."""

    def __init__(self, *ends: bytes, steps: int = SILENT) -> None:
        self.ends = list(ends) or [ACCEPT]
        self.steps = steps
        self.connections: list[bytes] = []
        """The codes of the events of each, without macros."""
        self.after: Callable[[asyncio.StreamWriter], None] = lambda _: None
        """Called after each answer to the end of a message."""
        self.deaf_at = b""
        """Closes the connection when such an event comes."""
        self.answers = dict.fromkeys((bytes((code,)) for code in b"CHMRTLNB"), CONTINUE) if not steps else {}
        """To other events."""
        self.writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        at = len(self.connections)
        self.connections.append(b"")
        self.writers.append(writer)
        while head := await reader.read(1):
            (size,) = struct.unpack(">I", head + await reader.readexactly(3))
            code = (await reader.readexactly(size))[:1]
            if code == self.deaf_at:
                return
            self.connections[at] += code.replace(b"D", b"")
            if code == b"O":
                writer.write(options(steps=self.steps))
            elif code == b"E":
                writer.write(self.ends.pop(0) if len(self.ends) > 1 else self.ends[0])
                self.after(writer)
            elif code in self.answers:
                writer.write(self.answers[code])


class Asking:
    """Gives messages to a filter."""

    def __init__(self, address: str, settings: str) -> None:
        self.space = SpoolSpace("/tmp")
        line = parse_filter(f"m milter {address} {settings}")[0]
        self.member = MilterMember(line, Parts(self.space, ProcessLimit(16), hostname="gw.example"))

    async def judge(self, **known: Any) -> Judgement:
        stored = Spool(self.space)
        stored.write(member_harness.TEXT)
        stored.complete()
        try:
            return await self.member.judge(Mail.of(stored), member_harness.request(**known))
        finally:
            stored.close()

    @property
    def kept(self) -> int:
        return len(self.member._connections._kept)


def run(path: Path, milter: Milter, case: Callable[[Asking], Awaitable[None]], settings: str = "") -> None:
    async def main() -> None:
        async with member_harness.server(path / "s", milter.serve) as address:
            asking = Asking(address, settings)
            try:
                async with asyncio.timeout(member_harness.WAIT_SECONDS):
                    await case(asking)
            finally:
                asking.member.close()
            assert asking.space.memory == 0

    asyncio.run(main())


@pytest.mark.parametrize("steps", [0, SILENT])
def test_messages_of_one_client_share_a_connection(tmp_path: Path, steps: int) -> None:
    milter = Milter(ACCEPT, REJECT, packet(b"h", b"A\0b\0") + CONTINUE, steps=steps)

    async def case(asking: Asking) -> None:
        assert (await asking.judge()).edits == ()
        other = Envelope(b"", b"", [b"c@example.org"], [b""])
        assert (await asking.judge(envelope=other)).action is Action.REJECT
        assert len((await asking.judge()).edits) == 1

    run(tmp_path, milter, case)
    assert milter.connections == [FIRST + NEXT + NEXT + b"Q"]


@pytest.mark.parametrize(
    "known",
    [
        {"connection": "1/2"},
        {"helo": b"other"},
        {"authenticated": True},
        {"client": "192.0.2.8"},
        {"remote": b"192.0.2.1"},
        {"trace_id": "t2"},
    ],
)
def test_another_client_has_another_one(tmp_path: Path, known: dict[str, Any]) -> None:
    milter = Milter()

    async def case(asking: Asking) -> None:
        await asking.judge()
        await asking.judge(**known)
        assert asking.kept == 2

    run(tmp_path, milter, case)
    assert milter.connections == [FIRST + b"Q"] * 2


def test_two_messages_of_one_client_at_once(tmp_path: Path) -> None:
    """As with mode=shadow."""
    milter = Milter()

    async def case(asking: Asking) -> None:
        await asyncio.gather(asking.judge(), asking.judge())
        await asking.judge()
        assert asking.kept == 1

    run(tmp_path, milter, case)
    assert sorted(milter.connections) == [FIRST + NEXT + b"Q", FIRST + b"Q"]


@pytest.mark.parametrize("ends", [TEMPFAIL, packet(b"4"), packet(b"y", b"421 4.7.0 bye\0")])
def test_a_filter_that_refuses_for_now_is_left(tmp_path: Path, ends: bytes) -> None:
    milter = Milter(ends, ACCEPT)

    async def case(asking: Asking) -> None:
        assert (await asking.judge()).action is Action.TEMPFAIL
        assert (await asking.judge()).action is Action.PASS

    run(tmp_path, milter, case)
    assert milter.connections == [FIRST + b"Q"] * 2


@pytest.mark.parametrize("answer", [ACCEPT, REJECT])
@pytest.mark.parametrize(("event", "bit"), [(b"C", 0x1000), (b"H", 0x2000)])
def test_an_answer_to_the_client_is_not_one_to_the_next_message(
    tmp_path: Path, event: bytes, bit: int, answer: bytes
) -> None:
    milter = Milter(steps=SILENT & ~bit)
    milter.answers[event] = answer

    async def case(asking: Asking) -> None:
        for _ in range(2):
            await asking.judge()
            assert asking.kept == 0

    run(tmp_path, milter, case)
    assert milter.connections == [FIRST[: FIRST.index(event) + 1] + b"AQ"] * 2


@pytest.mark.parametrize("answer", [ACCEPT, REJECT])
@pytest.mark.parametrize(("event", "bit"), [(b"M", 0x4000), (b"R", 0x8000), (b"N", 0x40000), (b"B", 0x80000)])
def test_a_message_that_is_decided_before_its_end(tmp_path: Path, event: bytes, bit: int, answer: bytes) -> None:
    milter = Milter(steps=SILENT & ~bit)
    milter.answers[event] = answer

    async def case(asking: Asking) -> None:
        await asking.judge()
        assert asking.kept == 1
        milter.answers[event] = CONTINUE
        milter.ends = [packet(b"d")]
        assert (await asking.judge()).action is Action.DISCARD

    run(tmp_path, milter, case)
    assert milter.connections == [FIRST[: FIRST.index(event) + 1] + NEXT + b"Q"]


def test_a_filter_that_closes_after_each_message(tmp_path: Path) -> None:
    """Its messages are judged, and after the first nothing is kept."""
    milter = Milter()
    milter.after = lambda writer: writer.close()

    async def case(asking: Asking) -> None:
        await asking.judge()
        await asyncio.sleep(0.05)
        for _ in range(3):
            assert (await asking.judge()).action is Action.PASS
            assert asking.kept == 0

    run(tmp_path, milter, case)
    assert [events.rstrip(b"Q") for events in milter.connections] == [FIRST] * 4


def test_a_filter_that_closes_when_it_gets_the_next_message(tmp_path: Path) -> None:
    milter = Milter()
    milter.deaf_at = b"A"

    async def case(asking: Asking) -> None:
        await asking.judge()
        assert asking.kept == 1
        for _ in range(2):
            assert (await asking.judge()).action is Action.PASS
            assert asking.kept == 0

    run(tmp_path, milter, case)
    assert milter.connections == [FIRST, FIRST + b"Q", FIRST + b"Q"]


def test_a_reply_without_a_message_answers_none(tmp_path: Path) -> None:
    milter = Milter(REJECT, ACCEPT)

    async def case(asking: Asking) -> None:
        assert (await asking.judge()).action is Action.REJECT
        milter.writers[0].write(REJECT)
        await asyncio.sleep(0.05)
        assert (await asking.judge()).action is Action.PASS

    run(tmp_path, milter, case)
    assert milter.connections == [FIRST, FIRST + b"Q"]


def test_it_fails_in_the_next_message(tmp_path: Path) -> None:
    """It has begun to answer: the message failed, and is not given to it again. The next one is judged."""
    milter = Milter(steps=SILENT & ~0x4000)
    milter.answers[b"M"] = CONTINUE

    async def case(asking: Asking) -> None:
        await asking.judge()
        assert asking.kept == 1
        milter.deaf_at = b"E"
        with pytest.raises(FilterFailedError):
            await asking.judge()
        milter.deaf_at = b""
        assert (await asking.judge()).action is Action.PASS
        assert asking.kept == 0

    run(tmp_path, milter, case)
    assert milter.connections == [FIRST + NEXT[:-1], FIRST + b"Q"]


def test_it_is_silent_at_the_next_message(tmp_path: Path) -> None:
    """The time limit ends that message; then no connection is kept for a while."""
    milter = Milter(ACCEPT, b"", ACCEPT)

    async def case(asking: Asking) -> None:
        await asking.judge()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await asking.judge()
        for _ in range(2):
            assert (await asking.judge()).action is Action.PASS
            assert asking.kept == 0

    run(tmp_path, milter, case)
    assert milter.connections == [FIRST + NEXT, FIRST + b"Q", FIRST + b"Q"]


def test_it_is_ended_when_the_client_is_idle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(milter_connections, "IDLE", 0.1)
    milter = Milter()

    async def case(asking: Asking) -> None:
        await asking.judge()
        await asking.judge(connection="1/2")
        await until(lambda: asking.kept == 0, "both are ended")
        await until(lambda: milter.connections == [FIRST + b"Q"] * 2, "both are told")
        await asking.judge()
        assert asking.kept == 1

    run(tmp_path, milter, case)


def test_it_is_not_used_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(milter_connections, "LIFETIME", 0.0)
    milter = Milter()

    async def case(asking: Asking) -> None:
        await asking.judge()
        await asking.judge()

    run(tmp_path, milter, case)
    assert milter.connections == [FIRST + b"Q"] * 2


def test_no_more_connections_than_max(tmp_path: Path) -> None:
    """The one that has waited longest is ended."""
    milter = Milter()

    async def case(asking: Asking) -> None:
        for name in ("1", "2"):
            await asking.judge(connection=name)
        milter.ends = [b""]
        third = asyncio.create_task(asking.judge(connection="3"))
        await until(lambda: milter.connections == [FIRST + b"Q", FIRST, FIRST], "the first is told")
        milter.writers[2].write(ACCEPT)
        await third
        milter.ends = [ACCEPT]
        await asking.judge(connection="2")
        assert asking.kept == 2

    run(tmp_path, milter, case, "max=2")
    assert len(milter.connections) == 3
