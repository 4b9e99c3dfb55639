"""How many instructions a message or a session takes: the measure of every change to the hot path.

    .venv/bin/python -m bench.instructions            a message of 1 kB: the pure session, and a connection
    .venv/bin/python -m bench.instructions --profile  the functions that execute most of them

The dialogue is fixed: connect, EHLO, ten messages of 1 kB without a filter, QUIT; each line and each reply is an event
of its own, as without PIPELINING. Instructions are counted by valgrind (cachegrind, with --profile callgrind), so other
processes and the speed of the machine change nothing; two runs differ by less than a percent. The difference of a long
run and a short one is counted: so start and import of the program cost nothing.

session     `Session.feed`, nothing else
connection  `net.connection.Connection` between two transports that do nothing: effects, log, metrics, deadlines
accept      a session with one message through a whole worker (`accept_instructions`)
tls         the same in a session that has TLS on both legs, without its handshakes (`tls_instructions`)
milter      a connection whose messages a milter accepts (`filter_instructions`)
worker      the same with `cat` as a worker
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from bench import accept_instructions, filter_instructions, tls_instructions
from bench.dialogue import DIALOGUE, MESSAGES

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

LOG_LEVEL = 3
"""As `serve` without -d: information."""

FEW, MANY = 10, 40
"""Dialogues of the two runs. The first ones warm up the interpreter, which specialises code that runs often."""

PROFILED = 1000
"""Dialogues of a profile: so many that start and import are a small part."""


def session(dialogues: int) -> None:
    """The pure session: events in, effects out."""
    from proxsmtp_tp.session import events  # noqa: PLC0415  (what is not measured is not imported)
    from proxsmtp_tp.session.options import Options  # noqa: PLC0415
    from proxsmtp_tp.session.session import Session  # noqa: PLC0415

    options = Options()
    for _ in range(dialogues):
        tested = Session(options, client_ip="192.0.2.10", local_ip="192.0.2.1", clock=str)
        feed, measured = tested.feed, tested.measured
        feed(events.Connected("198.51.100.25", 25))
        for said, answer in DIALOGUE:
            if said:
                feed(events.ClientData(said))
            feed(events.ServerData(answer))
            measured.clear()
        if not tested.ended:
            raise RuntimeError("the dialogue has not come to its end")


class _Transport:
    """Takes what is written, as a transport of the event loop."""

    def __init__(self) -> None:
        self.octets = 0

    def write(self, data: bytes) -> None:
        self.octets += len(data)

    def write_eof(self) -> None:
        """As in a transport."""

    close = abort = write_eof


def _in_worker(part: Callable[[int], Coroutine[Any, Any, None]]) -> Callable[[int], None]:
    """Run a part in an event loop as a worker's, with a log that goes to /dev/null."""

    def run(dialogues: int) -> None:
        import asyncio  # noqa: PLC0415

        import uvloop  # noqa: PLC0415

        from proxsmtp_tp.service.logging import StreamHandler, set_up  # noqa: PLC0415

        with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
            set_up(StreamHandler("proxsmtpd", nowhere), LOG_LEVEL)
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(part(dialogues))

    return run


async def connection(dialogues: int) -> None:
    """A connection of a worker, from the callbacks of its transports to their `write`."""
    from proxsmtp_tp.config.reader import parse_config  # noqa: PLC0415
    from proxsmtp_tp.net.admission import Admission  # noqa: PLC0415
    from proxsmtp_tp.net.connection import Connection  # noqa: PLC0415
    from proxsmtp_tp.net.proxy import Proxy  # noqa: PLC0415

    settings = parse_config(b"Listen: 127.0.0.1:10025\nOutAddress: 127.0.0.1:10026\n", "bench").settings
    proxy = Proxy(settings, [], Admission(1000, 1), 0)
    listener = socket.create_server(("127.0.0.1", 0))
    for number in range(dialogues):
        with socket.create_connection(listener.getsockname()):
            accepted = listener.accept()
            names = f"{number:06X}", f"{number:013X}"
            tested = Connection(proxy.context, accepted, names, lambda _: None)
            tested.client_made(_Transport())
            tested.server_ip, tested.server_port = "198.51.100.25", 25
            tested.server_made(_Transport())
            for said, answer in DIALOGUE:
                if said:
                    tested.client_data(said)
                tested.server_data(answer)
            if not tested.session.ended:
                raise RuntimeError("the dialogue has not come to its end")
            tested.client_lost()
            tested.server_lost()
            accepted[0].close()


_PEERS = "tls peers"
MEASURED: dict[str, Callable[[int], None]] = {
    "session": session,
    "connection": _in_worker(connection),
    "accept": _in_worker(accept_instructions.worker),
    "tls": _in_worker(tls_instructions.connection),
    "milter": _in_worker(filter_instructions.milter),
    "worker": _in_worker(filter_instructions.worker),
    _PEERS: tls_instructions.peers,
}
OF_A_SESSION = {"accept"}
"""Parts whose dialogue has one message: what is counted is a session."""
SUBTRACTED = {"tls": _PEERS}
"""Peers that run in the process of a part."""


def _run(valgrind: list[str], name: str, dialogues: int) -> str:
    """Run a part in a process of its own; what valgrind says at the end."""
    command = [*valgrind, sys.executable, "-m", "bench.instructions", "--run", name, str(dialogues)]
    environment = {"PATH": os.environ["PATH"], "PYTHONHASHSEED": "0", "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr}")
    return done.stderr


def instructions(name: str, few: int = FEW, many: int = MANY) -> int:
    """Instructions of a message of this part, with its share of the dialogue around it, or of a session."""
    _run([], name, 1)  # so that every module has its bytecode on the disk before a run is counted
    counting = ["valgrind", "--tool=cachegrind", "--cache-sim=no", f"--cachegrind-out-file={os.devnull}"]

    def counted(part: str) -> int:
        each = []
        for dialogues in (few, many):
            said = _run(counting, part, dialogues)
            each.append(int(re.findall(r"I\s+refs:\s+([\d,]+)", said)[0].replace(",", "")))
        return (each[1] - each[0]) // ((many - few) * (1 if part in OF_A_SESSION else MESSAGES))

    return counted(name) - (counted(SUBTRACTED[name]) if name in SUBTRACTED else 0)


def profile(name: str, shown: int) -> str:
    """The functions of the interpreter and of compiled modules that execute the most instructions."""
    with tempfile.TemporaryDirectory() as folder:
        out = f"{folder}/out"
        _run(["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}"], name, PROFILED)
        done = subprocess.run(["callgrind_annotate", out], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    start = next(at for at, line in enumerate(lines) if "file:function" in line)
    return "\n".join(lines[start : start + shown + 2])


def main() -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(description="instructions of a message, counted by valgrind")
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(MEASURED)} (all of them)")
    parser.add_argument("--profile", action="store_true", help="also the functions that take most of them")
    parser.add_argument("--run", nargs=2, metavar=("PART", "DIALOGUES"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run:
        MEASURED[args.run[0]](int(args.run[1]))
        return 0
    if shutil.which("valgrind") is None:
        print("missing: valgrind: run .ci/packages bench", file=sys.stderr)
        return 1
    for name in args.parts or (part for part in MEASURED if part != _PEERS):
        unit = "session" if name in OF_A_SESSION else "message"
        print(f"{name}: {instructions(name):,} instructions a {unit}", flush=True)
        if args.profile:
            print(profile(name, 40))
    return 0


if __name__ == "__main__":
    sys.exit(main())
