"""The same load through this project, its peers and nothing: messages a second, side by side in one run.

    make bench                                     the table in README.md
    .venv/bin/python bench/throughput.py --help    other loads

smtp-source (Postfix) sends, smtp-sink takes, on loopback; -d keeps connections for several messages. Each figure is the
best of the rounds: on a shared machine noise only ever slows down. Peers: haproxy in TCP mode copies bytes and knows no
SMTP, the limit to be near; proxsmtpd 1.10 is what this project succeeds.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

BIN = Path(sys.executable).parent
FILTER = "FilterCommand: cat\n"
START_LIMIT = 10.0
RUN_LIMIT = 60.0


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(command: list[str], port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A daemon from its first accepted connection until the end of the block."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        deadline = time.monotonic() + START_LIMIT
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command[0]} does not accept connections on port {port}")
            time.sleep(0.05)
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def ours(folder: Path, port: int, sink: int, more: str = "") -> list[str]:
    """This project, two workers, its log line for each message written to nowhere."""
    config = folder / "ours.conf"
    config.write_text(
        f"Listen: 127.0.0.1:{port}\nOutAddress: 127.0.0.1:{sink}\nMaxConnections: 4000\nWorkers: 2\n{more}"
    )
    return [str(BIN / "proxsmtp-tp"), "serve", "-f", str(config)]


def ours_with_cat(folder: Path, port: int, sink: int) -> list[str]:
    """This project with a filter that changes nothing."""
    return ours(folder, port, sink, FILTER)


def original(folder: Path, port: int, sink: int, more: str = "") -> list[str]:
    """proxsmtpd 1.10 without a filter."""
    config = folder / "original.conf"
    config.write_text(f"Listen: 127.0.0.1:{port}\nOutAddress: 127.0.0.1:{sink}\nMaxConnections: 4000\n{more}")
    return ["/usr/sbin/proxsmtpd", "-d", "1", "-f", str(config)]


def original_with_cat(folder: Path, port: int, sink: int) -> list[str]:
    """proxsmtpd 1.10 with a filter that changes nothing."""
    return original(folder, port, sink, FILTER)


def haproxy(folder: Path, port: int, sink: int) -> list[str]:
    """A relay of bytes, one thread."""
    config = folder / "haproxy.cfg"
    config.write_text(
        "global\n nbthread 1\n maxconn 8000\n"
        "defaults\n mode tcp\n timeout client 60s\n timeout server 60s\n timeout connect 5s\n"
        f"listen smtp\n bind 127.0.0.1:{port}\n server sink 127.0.0.1:{sink}\n"
    )
    return ["haproxy", "-db", "-f", str(config)]


Maker = Callable[[Path, int, int], list[str]]
SUBJECTS: dict[str, Maker | None] = {
    "nothing between": None,
    "haproxy, TCP mode": haproxy,
    "proxsmtp-tp": ours,
    "proxsmtpd 1.10": original,
    "proxsmtp-tp, `cat`": ours_with_cat,
    "proxsmtpd 1.10, `cat`": original_with_cat,
}


def messages_a_second(port: int, sessions: int, messages: int, size: int) -> float:
    """One run of smtp-source; 0 when it failed or took too long."""
    command = ["smtp-source", "-d", "-s", str(sessions), "-m", str(messages), "-l", str(size),
               "-f", "a@example.org", "-t", "b@example.org", f"127.0.0.1:{port}"]  # fmt: skip
    begin = time.monotonic()
    try:
        done = subprocess.run(command, capture_output=True, timeout=RUN_LIMIT, check=False)
    except subprocess.TimeoutExpired:
        return 0.0
    return messages / (time.monotonic() - begin) if done.returncode == 0 else 0.0


def measured(maker: Maker | None, sessions: int, messages: int, size: int, rounds: int) -> float:
    """The best of the rounds through one subject, with a sink of its own."""
    sink = free_port()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        stack.enter_context(running(["smtp-sink", "-u", "nobody", "-m", "10000", f"127.0.0.1:{sink}", "4096"], sink))
        port = sink
        if maker is not None:
            port = free_port()
            stack.enter_context(running(maker(Path(folder), port, sink), port))
        return max(messages_a_second(port, sessions, messages, size) for _ in range(rounds))


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description="messages a second through this project and its peers")
    parser.add_argument("--sessions", type=int, nargs="+", default=[1, 20, 100, 400])
    parser.add_argument("--messages", type=int, default=4000, help="in each round; slow subjects get a part")
    parser.add_argument("--size", type=int, default=1000, help="octets of a message")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", help="subjects whose name contains this")
    args = parser.parse_args()
    missing = [tool for tool in ("smtp-source", "smtp-sink", "haproxy") if shutil.which(tool) is None]
    if missing or not Path("/usr/sbin/proxsmtpd").exists():
        print("missing: " + ", ".join(missing or ["proxsmtpd"]) + ": run .ci/packages bench", file=sys.stderr)
        return 1
    print(f"messages a second, {args.size} octets each, {os.cpu_count()} cores, best of {args.rounds}\n")
    print("| sessions | " + " | ".join(map(str, args.sessions)) + " |")
    print("|---|" + "---:|" * len(args.sessions))
    for name, maker in SUBJECTS.items():
        if args.only and args.only not in name:
            continue
        figures = []
        for sessions in args.sessions:
            slow = name.startswith("proxsmtpd") and sessions == 1  # it waits 44 ms in each exchange
            messages = 40 if slow else args.messages // 4 if "1.10" in name or "cat" in name else args.messages
            rate = measured(maker, sessions, messages, args.size, args.rounds)
            figures.append(f"{rate:.0f}" if rate else "failed")
        print(f"| {name} | " + " | ".join(figures) + " |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
