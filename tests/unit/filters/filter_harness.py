"""Runs filters in tests: event loops, an owner that checks the contract, and checks that nothing is left behind.

Every command gets a HELO of its own kind, which all that it starts inherit: so processes are found, whoever reaps them.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import uvloop

from proxsmtp_tp.config.settings import FilterDefault
from proxsmtp_tp.filters.command import CommandFilter
from proxsmtp_tp.filters.interface import FilterRequest, FilterRun
from proxsmtp_tp.filters.launcher import Command
from proxsmtp_tp.filters.limit import ProcessLimit
from proxsmtp_tp.filters.spool_space import SpoolSpace
from proxsmtp_tp.filters.verdict import Action, Verdict
from proxsmtp_tp.smtp.envelope import Envelope
from tests.child_processes import child_processes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from proxsmtp_tp.filters.command import Kind
    from proxsmtp_tp.filters.interface import Filter

_T = TypeVar("_T")

WAIT_SECONDS = 60.0
"""Seconds that a test waits for what must come. Far more than it takes on a busy machine."""

TEXT = b"Subject: hello\r\n\r\nGood morning.\r\n"

_numbers = itertools.count(1)


OF_ALL_MESSAGES = {"ProcessLimit._look", "ProcessLimit._woken", "Watch._look"}
"""Callbacks that belong to no message. A message that waits for a place has a time limit."""


class CheckingLoop(asyncio.SelectorEventLoop):
    """Every callback of a filter must be one of `callbacks.callback`: otherwise an error in it would only be logged."""

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:  # type: ignore[override]
        check_callback(callback)
        return super().call_soon(callback, *args, context=context)

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> asyncio.TimerHandle:  # type: ignore[override]
        check_callback(callback)
        return super().call_at(when, callback, *args, context=context)

    def add_reader(self, fd: Any, callback: Any, *args: Any) -> None:  # type: ignore[override]
        check_callback(callback)
        super().add_reader(fd, callback, *args)

    def add_writer(self, fd: Any, callback: Any, *args: Any) -> None:  # type: ignore[override]
        check_callback(callback)
        super().add_writer(fd, callback, *args)


def check_callback(given: Any) -> None:
    """AssertionError for a function of a filter without the decorator."""
    function = getattr(given, "__func__", given)
    if str(getattr(function, "__module__", "")).startswith("proxsmtp_tp.filters."):
        decorated = hasattr(function, "__wrapped__")
        assert decorated or function.__qualname__ in OF_ALL_MESSAGES, f"{function.__qualname__} is no `callback`"


class JumpingLoop(CheckingLoop):
    """Its clock can be set forward: limits of minutes are reached without waiting."""

    _ahead = 0.0

    def time(self) -> float:
        return super().time() + self._ahead

    def jump(self, seconds: float) -> None:
        self._ahead += seconds


LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "uvloop": uvloop.new_event_loop,
    "asyncio": CheckingLoop,
    "jumping": JumpingLoop,
}


def run_on(name: str, main: Coroutine[Any, Any, _T]) -> _T:
    """Run on one of LOOPS. What a callback raises, which a loop only logs, fails the test."""
    trouble: list[dict[str, Any]] = []
    with asyncio.Runner(loop_factory=LOOPS[name]) as runner:
        runner.get_loop().set_exception_handler(lambda _loop, context: trouble.append(context))
        result = runner.run(_bounded(main))
    assert not trouble, trouble
    return result


async def _bounded(main: Coroutine[Any, Any, _T]) -> _T:
    task = asyncio.ensure_future(main)
    if not isinstance(asyncio.get_running_loop(), JumpingLoop):
        return await asyncio.wait_for(task, 2 * WAIT_SECONDS)
    return await task


def jump(seconds: float) -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, JumpingLoop)
    loop.jump(seconds)


async def until(met: Callable[[], object], what: str, *, pause: float = 0.005) -> None:
    """Wait for a condition; fail with `what` if it does not come true. `pause=0`: look in every turn of the loop."""
    end = time.monotonic() + WAIT_SECONDS
    while not met():
        assert time.monotonic() < end, f"in vain: {what}"
        await asyncio.sleep(pause)


async def pass_through(turns: int = 3) -> None:
    """Let the loop do what is ready."""
    for _ in range(turns):
        await asyncio.sleep(0)


def request(helo: bytes = b"client.example", **more: Any) -> FilterRequest:
    known: dict[str, Any] = {
        "connection": "100001",
        "envelope": Envelope(b"alice@example.com", b"", [b"bob@example.net", b"carol@example.org"]),
        "client": "192.0.2.7",
        "server": "198.51.100.25",
        "helo": helo,
        "trace_id": "01JD8Q3K7C2VA",
    }
    return FilterRequest(**(known | more))


class Owner:
    """A FilterOwner. It may not be called from inside a call to the run, nor get a second verdict."""

    def __init__(self) -> None:
        self.verdicts: list[Verdict] = []
        self.places: list[str] = []
        """What it was told of places."""
        self.inside = False
        self.verdict: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()

    def filter_waits(self) -> None:
        self.places.append("waits")

    def filter_started(self) -> None:
        self.places.append("started")

    def filter_verdict(self, verdict: Verdict) -> None:
        assert not self.inside
        self.verdicts.append(verdict)
        self.verdict.set_result(verdict)

    def filter_failed(self, error: Exception) -> None:
        raise error  # the event loop reports it


@dataclass
class Case:
    """One message before a filter."""

    owner: Owner
    run: FilterRun
    helo: bytes
    finished: bool = field(default=False)

    def write(self, text: bytes) -> None:
        self.owner.inside = True
        self.run.write(text)
        self.owner.inside = False

    def finish(self) -> None:
        self.finished = True
        self.owner.inside = True
        self.run.finish()
        self.owner.inside = False

    def abort(self) -> None:
        self.owner.inside = True
        self.run.abort()
        self.owner.inside = False

    async def write_in_pieces(self, text: bytes, piece: int = 32 * 1024) -> None:
        """As a message comes over the network."""
        for at in range(0, len(text), piece):
            self.write(text[at : at + piece])
            await asyncio.sleep(0)

    async def verdict(self) -> Verdict:
        return await asyncio.wait_for(asyncio.shield(self.owner.verdict), WAIT_SECONDS)

    def read_all(self, size: int = 10_000) -> bytes:
        pieces = []
        while piece := self.run.read(size):
            assert len(piece) <= size
            pieces.append(piece)
        return b"".join(pieces)

    def alive(self) -> list[int]:
        """Processes of this message's command, zombies excepted."""
        return processes_with(b"HELO=" + self.helo)


def start(filter_: Filter, **known: Any) -> Case:
    owner = Owner()
    helo = known.pop("helo", b"client%d-%d.example" % (os.getpid(), next(_numbers)))
    owner.inside = True
    run = filter_.start(request(helo, **known), owner)
    owner.inside = False
    return Case(owner, run, helo)


def complete(filter_: CommandFilter, text: bytes = TEXT, **known: Any) -> Case:
    """A message that the command is to judge."""
    case = start(filter_, **known)
    case.write(text)
    case.finish()
    return case


async def judge(filter_: Filter, message: bytes, **known: Any) -> tuple[Verdict, bytes]:
    """A whole message's way: the verdict, and the message that passed."""
    case = start(filter_, **known)
    await case.write_in_pieces(message)
    case.finish()
    verdict = await case.verdict()
    passed = case.read_all()
    assert (verdict.action is Action.PASS) == (verdict.reply is None)
    assert verdict.size == len(passed)
    assert "\n" not in verdict.detail
    assert verdict.detail.isprintable()
    case.run.abort()  # a connection calls both
    case.run.close()
    return verdict, passed


@asynccontextmanager
async def filtering(
    command: str,
    directory: Path,
    kind: Kind = "pipe",
    *,
    limit: float = WAIT_SECONDS,
    processes: int = 8,
    default: FilterDefault = FilterDefault.REJECT,
) -> AsyncIterator[CommandFilter]:
    """A filter that leaves nothing behind."""
    space = SpoolSpace(str(directory))
    async with nothing_left(directory):
        filter_ = CommandFilter(Command(command, limit, default), kind, space, ProcessLimit(processes))
        yield filter_
        await until(lambda: filter_.running == 0, "every process is reaped")
        assert filter_.waiting == 0
        filter_.close()
    assert space.memory == 0


@asynccontextmanager
async def nothing_left(directory: Path) -> AsyncIterator[None]:
    """At the end there is no process, no zombie, no descriptor and no message file that was not there before."""
    await asyncio.sleep(0)
    descriptors, children, files = open_descriptors(), child_processes(), message_files(directory)
    yield
    assert child_processes() == children
    assert not open_descriptors().items() ^ descriptors.items()
    assert message_files(directory) == files


def message_files(directory: Path) -> set[Path]:
    """Files that EMAIL named."""
    return {path for path in directory.glob("proxsmtpd.*") if path.is_file()}


def open_descriptors() -> dict[str, str]:
    found = {}
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found[entry.name] = str(entry.readlink())
        except FileNotFoundError:  # the descriptor that listed the directory
            continue
    return found


def processes_with(variable: bytes) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or entry.name == str(os.getpid()):
            continue
        try:
            environment = (entry / "environ").read_bytes()
        except OSError:  # it is gone, or somebody else's
            continue
        if variable in environment.split(b"\0"):
            found.append(int(entry.name))
    return found
