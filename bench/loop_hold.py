"""How long the start of a filter holds up the event loop of a worker: by os.posix_spawn in it, and by `spawner`.

    .venv/bin/python -m bench.loop_hold [--starts 300] [--mib 0 30 300]

A coroutine notes the time in each turn of the loop, as fast as it turns. For each start: the longest time between two
turns, from the call until the process is known. `nothing`: the same time without a start, which is what the machine and
the coroutine themselves take: on a machine with other work, subtract it. The process has so many MiB more than Python
and uvloop need.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import statistics
import time
from typing import TYPE_CHECKING

import uvloop

from proxsmtp_tp.filters.execution import Execution
from proxsmtp_tp.filters.spawner import Start

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

GOAL = 200.0
"""Microseconds that the loop may be held up (issue 18)."""
DEFAULT_SIGNALS = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}


class Turns:
    """The longest time between two turns of the loop since `begin`."""

    def __init__(self) -> None:
        self._last = time.perf_counter()
        self.longest = 0.0
        self._task = asyncio.get_running_loop().create_task(self._turn())

    async def _turn(self) -> None:
        while True:
            now = time.perf_counter()
            self.longest = max(self.longest, now - self._last)
            self._last = now
            await asyncio.sleep(0)

    def begin(self) -> None:
        """Forget what was before."""
        self._last, self.longest = time.perf_counter(), 0.0

    def end(self) -> None:
        """Note no more."""
        self._task.cancel()


async def in_the_loop(_execution: Execution) -> int:
    """os.posix_spawn, which waits until the program is executed."""
    actions = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDWR, 0), (os.POSIX_SPAWN_DUP2, 0, 1)]
    pid = os.posix_spawn(  # noqa: ASYNC221  (that it blocks is what is measured)
        "/usr/bin/cat", ["cat"], os.environ, file_actions=actions, setsid=True, setsigmask=(), setsigdef=DEFAULT_SIGNALS
    )
    await asyncio.sleep(0)
    return pid


async def by_the_thread(execution: Execution) -> int:
    """As a filter is started."""
    done = asyncio.Event()
    start = Start(asyncio.get_running_loop(), execution.prepared({}), (None, None, None), done.set)
    await done.wait()
    return start.pid


async def nothing(_execution: Execution) -> int:
    """No process, for about the same time."""
    await asyncio.sleep(0.001)
    return 0


WAYS: dict[str, Callable[[Execution], Awaitable[int]]] = {
    "os.posix_spawn": in_the_loop,
    "spawner": by_the_thread,
    "nothing": nothing,
}


async def measured(starts: int) -> dict[str, list[float]]:
    """Microseconds, by way; each in turn, so that what else the machine does hits all."""
    turns, execution = Turns(), Execution("cat", os.environb)
    found: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(starts):
        for name, way in WAYS.items():
            turns.begin()
            pid = await way(execution)
            await asyncio.sleep(0)
            found[name].append(turns.longest * 1e6)
            if pid:
                os.waitpid(pid, 0)  # noqa: ASYNC222  (nothing else runs)
    turns.end()
    return found


def main() -> int:
    """Print the table. 0: the median of `spawner` is under the goal."""
    parser = argparse.ArgumentParser(description="how long the start of a filter holds up the event loop")
    parser.add_argument("--starts", type=int, default=300)
    parser.add_argument("--mib", type=int, nargs="+", default=[0, 30, 300], help="more memory of the process")
    args = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores, {args.starts} starts; microseconds\n")
    print("| MiB more | | p50 | p99 | max |\n|---:|---|---:|---:|---:|")
    reached = True
    for mib in args.mib:
        ballast = bytearray(os.urandom(1 << 20)) * mib
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            for name, held in runner.run(measured(args.starts)).items():
                p99 = statistics.quantiles(held, n=100)[98]
                print(f"| {mib} | {name} | {statistics.median(held):.0f} | {p99:.0f} | {max(held):.0f} |", flush=True)
                reached &= name != "spawner" or statistics.median(held) <= GOAL
        del ballast
    return 0 if reached else 1


if __name__ == "__main__":
    raise SystemExit(main())
