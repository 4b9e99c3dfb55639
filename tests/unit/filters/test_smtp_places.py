"""FilterType smtp: FilterProcesses limits the connections, and messages wait in order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.filters import endings
from proxsmtp_tp.filters.endings import Ending
from proxsmtp_tp.filters.verdict import Action
from tests.unit.filters.filter_harness import jump, pass_through, until
from tests.unit.filters.scanner_harness import LIMIT, TEXT, begin, complete, judged, lead, scanning
from tests.unit.net.proxy_harness import Mx

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.filters.conftest import Run


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


def test_a_message_that_gives_up_leaves_the_queue(run: Run, tmp_path: Path) -> None:
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
