"""What runs isolated sees nothing of the outside, changes nothing there, and leaves nothing behind."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

SECONDS = 60.0
ISOLATE = (sys.executable, "-m", "proxsmtp_tp.lab.isolate")
# A shell can not trap what was ignored when it began, such as SIGHUP where the tests run under nohup.
DEFAULTS = ("env", "--default-signal")


def isolated(*command: str) -> subprocess.CompletedProcess[str]:
    """Run to the end, isolated."""
    return subprocess.run(
        [*ISOLATE, *command], capture_output=True, text=True, timeout=SECONDS, check=False, stdin=subprocess.DEVNULL
    )


@contextmanager
def started(script: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A shell script, isolated, that has written its first line, "up"; and the descriptor to read on from."""
    with subprocess.Popen([*DEFAULTS, *ISOLATE, "sh", "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            assert read_until(process.stdout.fileno(), b"up\n") == b"up\n"
            yield process, process.stdout.fileno()
        finally:
            process.kill()


def read_until(descriptor: int, end: bytes | None) -> bytes:
    """Read until `end` came, or (None) until nobody holds the other end any more."""
    text, limit = b"", time.monotonic() + SECONDS
    while end is None or not text.endswith(end):
        ready, _, _ = select.select([descriptor], [], [], max(0.0, limit - time.monotonic()))
        assert ready, f"nothing more comes after {text!r}"
        try:
            chunk = os.read(descriptor, 4096)
        except OSError:  # a terminal whose last process has gone
            chunk = b""
        if not chunk:
            break
        text += chunk
    return text


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (("true",), 0),
        (("sh", "-c", "exit 7"), 7),
        (("sh", "-c", "kill -TERM $$"), 128 + signal.SIGTERM),
        (("sh", "-c", "kill -KILL $$"), 128 + signal.SIGKILL),
        (("/nonexistent",), 127),
        (("/etc/passwd",), 126),
        ((), 2),
    ],
)
def test_exit_status(command: tuple[str, ...], status: int) -> None:
    assert isolated(*command).returncode == status


def test_only_loopback_and_it_is_up() -> None:
    assert isolated("ip", "-o", "link").stdout.count("\n") == 1
    assert "UP" in isolated("ip", "link", "show", "lo", "up").stdout


def test_own_processes_only() -> None:
    done = isolated("sh", "-c", "echo $$; ls /proc | grep -c '^[0-9]'")
    assert done.stdout.split()[0] == "2", "the command is not the first child of the namespace's first process"
    assert int(done.stdout.split()[1]) <= 6


def test_run_is_empty_and_private(tmp_path: Path) -> None:
    name = f"isolate-{os.getpid()}"
    done = isolated("sh", "-c", f"ls /run; ip netns add {name} && ls /run/netns; touch /run/{name}")
    assert done.stdout.split() == ["lock", "netns", name]
    assert done.returncode == 0
    assert not Path("/run/netns", name).exists()
    assert not Path("/run", name).exists()


def test_mounts_do_not_leak_out(tmp_path: Path) -> None:
    assert isolated("sh", "-c", f"mount -t tmpfs tmpfs {tmp_path} && touch {tmp_path}/inside").returncode == 0
    assert not list(tmp_path.iterdir())


def test_settings_of_the_outer_network_stay() -> None:
    forwarding = Path("/proc/sys/net/ipv4/ip_forward")
    before = forwarding.read_text()
    other = "0" if before.strip() == "1" else "1"
    done = isolated("sh", "-c", f"echo {other} >{forwarding} && cat {forwarding}")
    assert done.stdout.strip() == other
    assert forwarding.read_text() == before


def test_kill_leaves_nothing() -> None:
    """Every process that was started has our pipe open: at its end none of them runs."""
    with started("setsid sleep 600 & sleep 600 & echo up; wait") as (process, output):
        process.kill()
        process.wait(SECONDS)
        assert read_until(output, None) == b""


def test_what_was_left_running_ends_with_the_command() -> None:
    with started("setsid sleep 600 & echo up; exit 3") as (process, output):
        assert process.wait(SECONDS) == 3
        assert read_until(output, None) == b""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_signals_reach_the_command(number: signal.Signals) -> None:
    with started(f"trap 'echo caught; exit 5' {int(number)}; sleep 600 & echo up; wait") as (process, output):
        process.send_signal(number)
        assert process.wait(SECONDS) == 5
        assert read_until(output, None) == b"caught\n"


def test_what_the_caller_ignores_stays_ignored() -> None:
    """As under nohup: a signal that ends others is no end of the command."""
    done = isolated("nohup", *ISOLATE, "sh", "-c", "kill -HUP $$; echo lives")
    assert done.stdout == "lives\n"


def test_a_terminals_interrupt_comes_once() -> None:
    """The terminal signals the whole process group: what the supervisor added would be a second one."""
    script = "import signal, time, os\ncount = 0\ndef caught(*_):\n    global count\n    count += 1\n"
    script += "signal.signal(signal.SIGINT, caught)\nprint('up', flush=True)\n"
    script += "while not count:\n    time.sleep(0.01)\n"
    script += (
        "end = time.monotonic() + 0.5\nwhile time.monotonic() < end:\n    time.sleep(0.01)\nprint('count', count)\n"
    )
    child, terminal = pty.fork()
    if child == 0:
        os.execv(sys.executable, [*ISOLATE, sys.executable, "-c", script])
    try:
        read_until(terminal, b"up\r\n")
        os.write(terminal, b"\x03")
        assert b"count 1\r\n" in read_until(terminal, None)
    finally:
        os.kill(child, signal.SIGKILL)  # not waited for yet: gone or not, the number is still its own
        os.waitpid(child, 0)
        os.close(terminal)


def test_roots_programs_are_found() -> None:
    """An ordinary user's PATH has not nft; inside he is root."""
    done = isolated("env", "PATH=/usr/bin:/bin", *ISOLATE, "sh", "-c", "command -v nft; echo $PATH")
    assert done.stdout.splitlines() == ["/usr/sbin/nft", "/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"]


def test_refusal_says_what_to_type() -> None:
    """No namespace may be made any more: the user learns why, and the command that works."""
    code = "import os, sys; from proxsmtp_tp.lab.isolate import run_isolated; os.geteuid = lambda: 1000\n"
    code += "sys.exit(run_isolated(['true'], ['a b', 'demo']))"
    script = 'echo 0 >/proc/sys/user/max_user_namespaces && exec "$@"'
    done = isolated("unshare", "--user", "--map-root-user", "sh", "-c", script, "sh", sys.executable, "-c", code)
    assert done.returncode == 1
    assert "sudo 'a b' demo\n" in done.stderr
    assert "sudo sysctl user.max_user_namespaces=" in done.stderr
    assert "Traceback" not in done.stderr
