"""If a worker is killed, only its own connections and files are lost; the limit stays exact (promises 3 and 7)."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.faults.daemon import LIMIT, WORKERS, Daemon, DaemonPeers
from tests.unit.net.dialogue import DOT, MESSAGE
from tests.unit.net.fixtures import run
from tests.unit.net.proxy_harness import Mx, codes, until
from tests.unit.session.models import ModelServer

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """A running daemon."""
    started = Daemon(tmp_path, "FilterCommand: cat\nDrainTimeOut: 1")
    try:
        yield started
    finally:
        started.end()


def test_a_killed_worker_takes_only_its_own_connections(daemon: Daemon, tmp_path: Path) -> None:
    run(_kill_one(daemon, tmp_path))


async def _kill_one(daemon: Daemon, folder: Path) -> None:
    async with Mx(socket.AF_UNIX, str(folder / "mx")) as mx:
        await until(lambda: daemon.ready, "the daemon is ready")
        peers = DaemonPeers(folder, mx)
        callers = [await peers.caller() for _ in range(LIMIT)]
        assert not await peers.admitted()
        first, second = daemon.workers
        assert {caller.worker for caller in callers} == {first, second}

        os.kill(first, signal.SIGKILL)
        lost = [caller for caller in callers if caller.worker == first]
        kept = [caller for caller in callers if caller.worker == second]
        for caller in lost:
            heard = await caller.client.rest()
            assert 250 not in codes(heard)
            caller.client.close()
        for caller in kept:
            await caller.client.say(DOT.removeprefix("Subject: one\n"))
            assert await caller.client.reply() == b"250 2.0.0 queued"
        assert [caller.model.messages for caller in kept] == [[MESSAGE]] * len(kept)
        assert [caller.model.messages for caller in lost] == [[]] * len(lost)
        assert [b"DATA" in caller.model.commands for caller in lost] == [False] * len(lost)

        await until(lambda: len(daemon.workers) == WORKERS and first not in daemon.workers, "it is replaced")
        await until(lambda: "ended: signal SIGKILL" in daemon.log.read_text(), "it is logged")
        assert [await peers.admitted() for _ in range(len(lost) + 2)] == [True] * len(lost) + [False] * 2
        peers.close()


def test_a_stopped_process_of_type_worker_ends_with_the_worker_of_the_daemon(tmp_path: Path) -> None:
    """It cannot see the end of its standard input."""
    command = f"printf 'proxsmtp-worker=1\\n\\n'; touch {tmp_path}/asked; exec sleep 1000"
    started = Daemon(tmp_path, f"Filter: w worker {command}")
    try:
        run(_kill_the_one_with_a_stopped_process(started, tmp_path))
    finally:
        started.end()


async def _kill_the_one_with_a_stopped_process(daemon: Daemon, folder: Path) -> None:
    async with Mx(socket.AF_UNIX, str(folder / "mx")) as mx:
        await until(lambda: daemon.ready, "the daemon is ready")
        peers = DaemonPeers(folder, mx)
        caller = await peers.caller()
        await caller.client.say(DOT.removeprefix("Subject: one\n"))
        await until((folder / "asked").exists, "the process of the filter")
        (process,) = _children(caller.worker)
        os.kill(process, signal.SIGSTOP)
        os.kill(caller.worker, signal.SIGKILL)
        await until(lambda: not _runs(process), "the process has ended")
        caller.client.close()
        peers.close()


def _children(pid: int) -> list[int]:
    """What any thread of it has started."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for thread in threads for child in (thread / "children").read_text().split()]


def _runs(pid: int) -> bool:
    """It exists, and is no zombie."""
    with suppress(FileNotFoundError, ProcessLookupError):  # it may end while it is read
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    return False


OTHERS = (
    "proxsmtpd.conf",
    "proxsmtpd.x7Yz1Q",  # 1.10's
    "proxsmtpd.0123456789abcdef.report",
    "proxsmtpd.0123456789abcdef.abcdefgh.new",
)
"""What scripts, administrators and others may keep in a TempDirectory."""
FILE = "FilterType: file\nFilterCommand: true\nDrainTimeOut: 1"


@pytest.fixture
def two(tmp_path: Path) -> Iterator[tuple[Daemon, Daemon]]:
    """Two daemons that share one TempDirectory, and other things in it."""
    shared = tmp_path / "shared"
    shared.mkdir()
    for name in OTHERS:
        (shared / name).touch()
    daemons = []
    try:
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            daemons.append(Daemon(tmp_path / name, FILE, shared))
        yield daemons[0], daemons[1]
    finally:
        for daemon in daemons:
            daemon.end()


def test_a_killed_workers_message_files_are_removed_and_no_others(two: tuple[Daemon, Daemon]) -> None:
    run(_leave_files(*two))


async def _leave_files(one: Daemon, two: Daemon) -> None:
    async with Mx(socket.AF_UNIX, str(one.folder / "mx")) as mx, Mx(socket.AF_UNIX, str(two.folder / "mx")) as other_mx:
        await until(lambda: one.ready and two.ready, "both daemons are ready")
        others = set(OTHERS)
        peers, other_peers = DaemonPeers(one.folder, mx), DaemonPeers(two.folder, other_mx)
        callers = [await peers.caller() for _ in range(12)]
        others_too = [await other_peers.caller() for _ in range(4)]
        await until(lambda: len(one.files() - others) == 16, "each message has its file")

        first, _ = one.workers
        os.kill(first, signal.SIGKILL)
        kept = [caller for caller in callers if caller.worker != first]
        assert 0 < len(kept) < 12
        await until(lambda: len(one.files() - others) == len(kept) + 4, "the next one clears up")
        for caller in [*kept, *others_too]:
            await caller.client.say(DOT.removeprefix("Subject: one\n"))
            assert await caller.client.reply() == b"250 2.0.0 queued"
            assert caller.model.messages == [MESSAGE]
        assert one.files() == others

        last = [await peers.caller() for _ in range(3)]
        others_too.append(await other_peers.caller())
        await until(lambda: len(one.files() - others) == 4, "each message has its file")
        one.kill()
        for caller in last:
            caller.client.close()
        one.start()
        await until(lambda: one.ready, "it is ready again")
        assert len(one.files() - others) == 1
        await others_too[-1].client.say(DOT.removeprefix("Subject: one\n"))
        assert await others_too[-1].client.reply() == b"250 2.0.0 queued"
        assert one.files() == others
        peers.close()
        other_peers.close()


def test_killed_again_and_again_under_load(daemon: Daemon, tmp_path: Path) -> None:
    """Clients send message after message while one worker after the other is killed: none is doubled or torn."""
    run(_kill_many(daemon, tmp_path))


def flows(daemon: Daemon, models: list[ModelServer], dialogues: int) -> bool:
    """So many dialogues have been begun in all, and every worker is there."""
    return len(models) > dialogues and len(daemon.workers) == WORKERS


async def _kill_many(daemon: Daemon, folder: Path) -> None:
    models: list[ModelServer] = []
    sent: dict[bytes, bool] = {}

    def model() -> ModelServer:
        models.append(ModelServer())
        return models[-1]

    async with Mx(socket.AF_UNIX, str(folder / "mx")) as mx:
        await until(lambda: daemon.ready, "the daemon is ready")
        mx.serve(model)
        peers = DaemonPeers(folder, mx)
        going = True

        async def send(name: int) -> None:
            number = 0
            while going:
                number += 1
                text = b"Subject: %d of %d\r\n\r\nhello\r\n" % (number, name)
                client = await peers.client()
                sent[text] = False
                with suppress(OSError):
                    await client.say(
                        b"EHLO c\r\nMAIL FROM:<a@c>\r\nRCPT TO:<b@mx>\r\nDATA\r\n" + text + b".\r\nQUIT\r\n"
                    )
                heard = codes(await client.rest())
                sent[text] = heard[:6] == [220, 250, 250, 250, 354, 250]
                client.close()

        senders = [asyncio.create_task(send(name)) for name in range(6)]
        for kills in range(4):
            wanted = 20 * (kills + 1)
            await until(partial(flows, daemon, models, wanted), "mail flows")
            os.kill(daemon.workers[0], signal.SIGKILL)
        going = False
        await asyncio.gather(*senders)
        await until(lambda: len(mx.tasks) == 1, "only who accepts is left: every dialogue was heard to its end")
    messages = [message for each in models for message in each.messages]
    assert len(set(messages)) == len(messages), "doubled"
    assert set(messages) <= set(sent), "torn"
    assert {text for text, accepted in sent.items() if accepted} <= set(messages), "accepted and lost"
    assert sum(sent.values()) > 40
