"""All totals of status and metrics, over reloads and deaths of workers: no counter falls, and none is counted twice."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from bench.killed_workers import Run
from proxsmtp_tp.service.metrics_socket import read_metrics
from proxsmtp_tp.service.status import metrics_path
from tests.faults.daemon import WORKERS, Daemon

if TYPE_CHECKING:
    from pathlib import Path

MESSAGES = 40
RESTARTS = "proxsmtp_worker_restarts_total"
"""The only total that grows by itself: each worker that died was replaced."""


def measured(folder: Path) -> dict[str, float]:
    """Every series of `metrics` that must never fall: counters, and what histograms count."""
    text = read_metrics(metrics_path(next(folder.glob("*.sock"))))
    growing = set(re.findall(r"^# TYPE (\S+) (?:counter|histogram)$", text, re.MULTILINE))
    series = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {
        name: float(value)
        for name, _, value in series
        if re.sub(r"_(?:bucket|sum|count)$", "", family := name.partition("{")[0]) in growing or family in growing
    }


def totals(run: Run) -> dict[str, Any]:
    """Everything that status and metrics have counted."""
    status = run.status()
    shown = {f"{family} {name}": value for family, found in status["totals"].items() for name, value in found.items()}
    return {**shown, **status["counters"], **{k: v for k, v in measured(run.folder).items() if k != RESTARTS}}


async def watch(folder: Path, decreased: list[str]) -> None:
    """Look again and again, also while workers start and end: what was less than before?"""
    before: dict[str, float] = {}
    while True:
        with suppress(OSError):  # the daemon is busy
            now = await asyncio.to_thread(measured, folder)
            decreased += [
                f"{name}: {before[name]} -> {now.get(name)}" for name in before if now.get(name, -1) < before[name]
            ]
            before = now
        await asyncio.sleep(0.01)


async def scenario(folder: Path) -> None:
    run, decreased = Run(folder), []  # type: tuple[Run, list[str]]
    server = await asyncio.start_unix_server(run._serve, folder / "mx")
    daemon = Daemon(folder, "LogLevel: 2\nFilterCommand: cat")
    try:
        await run._until(lambda: daemon.ready)
        watching = asyncio.create_task(watch(folder, decreased))
        for step in ("reload", "death", "death", "reload", "death"):
            await run._part(daemon, MESSAGES, 0, abrupt=False)
            before = totals(run)
            assert before["messages_total filtered"] == run.seen.answered > 0
            if step == "death":
                await run._kill(daemon, abrupt=False)
            else:
                await daemon.reload()
            await run._until(lambda: len(run.status()["workers"]) == WORKERS)  # those of before are gone
            assert totals(run) == before, step
        await run._part(daemon, MESSAGES, 1, abrupt=True)  # in the middle of messages
        await daemon.reload()
        watching.cancel()
        assert decreased == []
        assert measured(folder)[RESTARTS] == run.kills == 4
    finally:
        daemon.end()
        server.close()


def test_no_total_falls_and_none_is_counted_twice(tmp_path: Path) -> None:
    asyncio.run(scenario(tmp_path))
