"""bench.processes: CPU time of a process with all that it starts, and of a daemon without the commands it executes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from bench import processes
from bench.processes import Cpu, cpu_time, forks, own_cpu_time
from bench.subjects import Subject

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

WAIT = 60.0
BURN = "import time; end = time.process_time() + 0.3\nwhile time.process_time() < end: pass\n"


def until(reached: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_cpu_time_of_children_that_run_and_that_have_ended() -> None:
    burn = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done"
    with subprocess.Popen(["sh", "-c", f"sh -c '{burn}; exit'; read x"], stdin=subprocess.PIPE) as process:
        until(lambda: cpu_time(process.pid).user + cpu_time(process.pid).system >= 0.05)
        process.kill()


def test_a_daemon_and_its_workers_without_the_commands_that_it_executes() -> None:
    """One fork that burns, one command that burns and has ended, one that burns and waits."""
    script = f"""
import os, subprocess, sys
burn = {BURN!r}
ended = subprocess.run([sys.executable, "-c", burn])
if os.fork() == 0:
    exec(burn)
    sys.stdin.read()
    os._exit(0)
waits = subprocess.Popen([sys.executable, "-c", burn + "input()"], stdin=subprocess.PIPE)
print("ready", flush=True)
sys.stdin.read()
"""
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            subject = Subject("a daemon", 0, process.pid)

            def burnt() -> tuple[float, float]:
                own, judging = subject.spent()
                return own.user + own.system, judging.user + judging.system

            until(lambda: burnt()[1] >= 0.5 and burnt()[0] >= 0.25)
            assert len(forks(process.pid)) == 2
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def test_a_process_that_has_ended_has_no_cpu_time() -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    assert cpu_time(process.pid) == own_cpu_time(process.pid) == Cpu()
    assert processes.memory(process.pid) == 0


def test_the_time_of_a_running_process_is_finer_than_a_tick() -> None:
    """By the clock of this process itself, from outside and from inside."""
    least = time.process_time()
    found = own_cpu_time(os.getpid())
    assert least <= found.user + found.system <= time.process_time()


def test_what_is_cut_off_one_part_is_in_the_other() -> None:
    """A tick of system time was counted meanwhile, and the user time was less than that."""
    assert Cpu(0.105, 0.02) - Cpu(0.109, 0.01) == Cpu(0.0, 0.006)
    assert Cpu(0.02, 0.105) - Cpu(0.01, 0.109) == Cpu(0.006, 0.0)


def test_differences_are_never_minus_zero() -> None:
    difference = Cpu(0.1 + 0.2, 0.3) - Cpu(0.3, 0.1 + 0.2)
    assert str(difference.user) == str(difference.system) == "0.0"


def test_a_daemon_that_does_not_start_is_quoted(tmp_path: Path) -> None:
    command = ["sh", "-c", "echo no such file >&2; exit 3"]
    with (
        pytest.raises(RuntimeError, match="no such file"),
        processes.running(command, processes.free_port(), tmp_path / "log"),
    ):
        pass


def test_a_daemon_runs_from_its_greeting_until_the_end_of_the_block(tmp_path: Path) -> None:
    port = processes.free_port()
    server = (
        "import os, socket, time\n"
        f"listener = socket.create_server(('127.0.0.1', {port}))\n"
        "time.sleep(0.3)\n"
        "while True:\n"
        "    taken = listener.accept()[0]\n"
        "    taken.sendall(os.environ['WHAT'].encode() + b'\\r\\n')\n"
    )
    command = [sys.executable, "-c", server]
    with processes.running(command, port, tmp_path / "log", environment={"WHAT": "220 here"}) as process:
        with socket.create_connection(("127.0.0.1", port), WAIT) as connected:
            assert connected.recv(100).startswith(b"220")
        assert processes.memory(process.pid) > 1000
    assert process.returncode == -signal.SIGTERM
    with suppress(OSError):
        socket.create_connection(("127.0.0.1", port), 1).close()
        pytest.fail("somebody still listens")
