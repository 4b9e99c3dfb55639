"""Each failure of each type of filter at each place of a chain, with each policy: all at once, on real sockets.

The answer is the policy's, no message passes unjudged or is lost, other messages are judged meanwhile, and a failure
concerns one message only.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
import tempfile
from contextlib import AsyncExitStack, ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.config.filter_lines import parse_filter
from proxsmtp_tp.config.settings import Settings
from proxsmtp_tp.filters.chain import ChainFilter
from proxsmtp_tp.filters.table import make_filter
from proxsmtp_tp.filters.verdict import Action
from tests.child_processes import child_processes
from tests.unit.filters.failing_filters import FAILURES, TIMEOUT, Switched, clamd, failing, kinds
from tests.unit.filters.filter_harness import TEXT, judge, run_on, until
from tests.unit.filters.member_harness import server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from proxsmtp_tp.filters.verdict import Verdict

POLICIES = {
    "tempfail": Action.TEMPFAIL,
    "reject": Action.REJECT,
    "pass": Action.PASS,
    "quarantine": Action.QUARANTINE,
}
PLACES = 3


@dataclass
class Try:
    """A chain with one filter that fails."""

    name: str
    chain: ChainFilter
    switch: Switched | None
    place: int
    policy: str
    quarantine: Path
    messages: int

    async def run(self) -> None:
        """The messages that meet the failure, and then one that does not."""
        for verdict, passed in await asyncio.gather(*(judge(self.chain, TEXT) for _ in range(self.messages))):
            self._check(verdict, passed)
        kept = len(list(self.quarantine.rglob("*.eml"))) if self.quarantine.exists() else 0
        assert kept == (self.messages if self.policy == "quarantine" else 0), self.name
        if self.switch is not None:
            self.switch.good = True
            verdict, passed = await judge(self.chain, TEXT)
            assert (verdict.action, passed) == (Action.PASS, TEXT), (self.name, verdict)

    def _check(self, verdict: Verdict, passed: bytes) -> None:
        assert verdict.action is POLICIES[self.policy], (self.name, verdict)
        assert passed == (TEXT if self.policy == "pass" else b""), self.name
        told = [each.verdict for each in verdict.judged]
        goes_on = self.policy in {"pass", "quarantine"}
        after = PLACES - self.place - 1 if goes_on else 0
        assert told == ["pass"] * self.place + ["failed"] + ["pass"] * after, (self.name, verdict)
        if self.policy == "tempfail":
            assert verdict.reply is not None
            assert verdict.reply.code == 451, self.name
        assert verdict.unjudged is (self.policy != "pass"), (self.name, verdict)


def chain(folder: Path, lines: list[str], quarantine: Path) -> ChainFilter:
    """Of these lines."""
    rows = tuple(row for line in lines for row in parse_filter(line))
    made = make_filter(Settings(filter=rows, temp_directory=str(folder), quarantine_directory=str(quarantine)))
    assert made is not None
    return made  # type: ignore[return-value]


async def prepared(stack: AsyncExitStack, folder: Path, failure: str) -> list[Try]:
    """All types, places and policies."""
    good = f"clamd {folder}/good"
    await stack.enter_async_context(server(folder / "good", clamd))
    found = []
    settings = f"max=1 wait=0.5 timeout={TIMEOUT:g}" if failure == "full" else f"timeout={TIMEOUT:g}"
    if failure in {"stopped", "killed", "garbage"}:
        settings = ""  # it is seen at once
    for number, (kind, place, policy) in enumerate(itertools.product(kinds(failure), range(PLACES), POLICIES)):
        rest, switch = await stack.enter_async_context(failing(folder / f"{number}", kind, failure))
        bad = f"bad {rest} failure={policy} {settings}"
        lines = [f"g{at} {good}" if at != place else bad for at in range(PLACES)]
        quarantine = folder / f"q{number}"
        quarantine.mkdir()
        made = chain(folder, lines, quarantine)
        stack.callback(made.close)
        name = f"{kind} {failure} at {place}, {policy}"
        found.append(Try(name, made, switch, place, policy, quarantine, 2 if failure == "full" else 1))
    return found


async def control(folder: Path, ended: asyncio.Event) -> int:
    """Other messages are judged meanwhile: how many."""
    good = chain(folder, [f"g{at} clamd {folder}/good" for at in range(PLACES)], folder)
    count = 0
    try:
        while not ended.is_set() or count < 3:
            verdict, passed = await judge(good, TEXT)
            assert (verdict.action, passed) == (Action.PASS, TEXT)
            count += 1
            await asyncio.sleep(0.02)
    finally:
        good.close()
    return count


async def case(folder: Path, failure: str) -> None:
    async with AsyncExitStack() as stack:
        tries = await prepared(stack, folder, failure)
        ended = asyncio.Event()
        others = asyncio.create_task(control(folder, ended))
        try:
            await asyncio.gather(*(each.run() for each in tries))
        finally:
            ended.set()
        assert await others >= 3
        for each in tries:
            await until(lambda: not each.chain.running, f"{each.name}: every place is free")  # noqa: B023
    await until(lambda: not child_processes(), "every process is reaped")


@pytest.fixture
def folder() -> Iterator[Path]:
    """Paths of sockets are short."""
    with tempfile.TemporaryDirectory(prefix="f.") as name:
        yield Path(name)


@pytest.mark.parametrize("failure", FAILURES)
def test_the_answer_is_that_of_the_policy(folder: Path, failure: str) -> None:
    run_on("uvloop", case(folder, failure))


@pytest.mark.parametrize(
    "answer", [b"Spam: False ; 1.2 / 5.0\r\n\r\n", b"Content-length: 0\r\nSpam: False ; 1 / 5\r\n\r\n"]
)
def test_spamd_returns_no_message(folder: Path, answer: bytes) -> None:
    """It is a failure of the filter, as every answer that is none, and not the end of the connection."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"morning.")
        writer.write(b"SPAMD/1.1 0 EX_OK\r\n" + answer)

    async def main() -> Verdict:
        async with server(folder / "spamd", handler) as address:
            made = chain(folder, [f"s spamd {address}"], folder)
            try:
                return (await judge(made, TEXT))[0]
            finally:
                made.close()

    verdict = run_on("uvloop", main())
    assert verdict.action is Action.TEMPFAIL
    assert "it returned no message" in verdict.detail


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_a_full_queue_of_a_unix_socket(folder: Path, loop: str) -> None:
    """As of a milter for which more messages come at once than libmilter's queue has places."""

    async def main() -> Verdict:
        made = chain(folder, [f"v clamd {folder}/s"], folder)
        with socket.socket(socket.AF_UNIX) as listener, ExitStack() as others:
            listener.bind(str(folder / "s"))
            listener.listen(0)
            with suppress(BlockingIOError):
                while True:
                    other = others.enter_context(socket.socket(socket.AF_UNIX))
                    other.setblocking(False)
                    other.connect(str(folder / "s"))
            judged = asyncio.create_task(judge(made, TEXT))
            await asyncio.sleep(0.1)
            assert not judged.done()
            others.close()
            serving = asyncio.create_task(_serve(listener))
            try:
                return (await judged)[0]
            finally:
                serving.cancel()
                await asyncio.wait([serving])
                made.close()

    assert run_on(loop, main()).action is Action.PASS


async def _serve(listener: socket.socket) -> None:
    """One connection after the other; those that filled the queue say nothing."""
    listener.setblocking(False)
    while True:
        accepted, _ = await asyncio.get_running_loop().sock_accept(listener)
        reader, writer = await asyncio.open_unix_connection(sock=accepted)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            await clamd(reader, writer)
        writer.close()
