"""What rows, counters, metrics, `top` and limits cost: CPU time of a message in the daemon, with and without them.

    .venv/bin/python -m proxsmtp_tp.lab.isolate .venv/bin/python -m bench.telemetry [--help]

Three daemons run beside each other, and get the same load in turn, so that what else the machine does hits all of them:

without   the tables are replaced by objects that do nothing
counted   as it is
watched   as it is, with a scrape of the metrics each second, `top` each second, and all limits of clients configured

The load is smtp-source to smtp-sink (Postfix), one message in a connection, without a filter: then the telemetry is the
largest part of a message. CPU time is that of the workers, for `watched` also of the master, which answers scrapes and
`top` (schedstat in proc(5): nanoseconds). What else the machine does only ever makes a message slower (caches, a
processor that is shared), so the quickest tenth of many short rounds counts; the median shows how busy the machine was.

--instructions counts the instructions of a worker in place of time, with cachegrind (valgrind(1)): other processes do
not disturb it, and it takes minutes. The tick of each second is left out there, since a message takes fifty times as
long; so are scrapes and `top`, which the master answers.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.processes import free_port, running, wait_for
from bench.subjects import sink

if TYPE_CHECKING:
    from collections.abc import Iterator

ADDRESS = "192.0.2.1"
"""On the loopback interface of the namespace: clients of 127.0.0.0/8 have no limits."""
_LIMITS = (
    "ClientConnections: 1000\nClientConnectionRate: 1000000/1m\nClientMessages: 1000000/1m\n"
    "ClientRecipients: 1000000/1m\nClientServers: 500/1h\nClientRejects: 1000/1h\nClientSpam: 1000/1h\n"
)
_GOALS = {"counted": 3.0, "watched": 5.0}
"""Percent more than `without`, at the most."""


class Nothing:
    """Takes every call, and does nothing."""

    def __init__(self, *_: object) -> None:
        """Take the arguments of what it replaces."""

    def __getattr__(self, _: str) -> Any:
        return _nothing


def _nothing(*_: object, **__: object) -> bool:
    return False


def serve(path: str, *, counted: bool, ticks: bool) -> int:
    """Run the daemon, with or without telemetry, and with or without the tick of each second."""
    from proxsmtp_tp.cli.main import main as cli  # noqa: PLC0415
    from proxsmtp_tp.net import proxy  # noqa: PLC0415

    if not counted:
        _count_nothing()
    if not ticks:
        proxy.TICK = 3600.0
    return cli(["serve", "-f", path])


def _count_nothing() -> None:
    """Replace the tables by objects that do nothing."""
    from proxsmtp_tp.net import connection, reporting  # noqa: PLC0415
    from proxsmtp_tp.net.context import WorkerContext  # noqa: PLC0415
    from proxsmtp_tp.session import effects  # noqa: PLC0415, TC001
    from proxsmtp_tp.telemetry.counters import Counters  # noqa: PLC0415
    from proxsmtp_tp.telemetry.metrics import WorkerMetrics  # noqa: PLC0415
    from proxsmtp_tp.telemetry.recent_messages import WorkerMessages  # noqa: PLC0415

    for where, names in (
        (connection, ("ShownSession", "FilterTimes")),
        (reporting, ("measure", "measure_refusal")),
        (WorkerContext, ("remember",)),
        (Counters, ("count",)),
        (WorkerMetrics, ("count", "observe")),
        (WorkerMessages, ("add",)),
    ):
        for name in names:
            setattr(where, name, Nothing if name[0].isupper() else _nothing)

    performed = connection.Connection.perform

    def perform(self: connection.Connection, todo: list[effects.Effect]) -> None:
        """The same, without counting."""
        self._measured.clear()
        performed(self, todo)

    connection.Connection.perform = perform  # type: ignore[method-assign]


@dataclass(frozen=True, slots=True)
class Subject:
    """A daemon that runs. `master` is its first process."""

    name: str
    port: int
    master: int
    configuration: Path

    def nanoseconds(self) -> int:
        """CPU time until now."""
        children = Path(f"/proc/{self.master}/task/{self.master}/children").read_text().split()
        return sum(map(_schedstat, (self.master, *map(int, children))))


def _schedstat(pid: int) -> int:
    """CPU time of a process in nanoseconds (proc(5))."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])


def configuration(folder: Path, name: str, port: int, to: int, workers: int) -> Path:
    """The file of one daemon."""
    path = folder / f"{name}.conf"
    path.write_text(
        f"Instance: {name}\nListen: {ADDRESS}:{port}\nOutAddress: 127.0.0.1:{to}\nMaxConnections: 4000\n"
        f"Workers: {workers}\nTempDirectory: {folder}\n{_LIMITS if name == 'watched' else ''}"
    )
    return path


def command_of(name: str, path: Path, *, ticks: bool = True) -> list[str]:
    """The command that runs it."""
    more = ["--uncounted"] if name == "without" else []
    return [sys.executable, "-m", "bench.telemetry", "--serve", str(path), *more, *([] if ticks else ["--no-ticks"])]


@contextlib.contextmanager
def subject(name: str, folder: Path, to: int) -> Iterator[Subject]:
    """A daemon from its first accepted connection until the end of the block."""
    port = free_port()
    path = configuration(folder, name, port, to, workers=2)
    with running(command_of(name, path), (ADDRESS, port), folder / f"{name}.log") as process:
        yield Subject(name, port, process.pid, path)


def send(port: int, messages: int, sessions: int = 20) -> None:
    """Send the load of one round."""
    command = ["smtp-source", "-s", str(sessions), "-m", str(messages), "-l", "1000",
               "-f", "a@example.org", "-t", "b@example.org", f"{ADDRESS}:{port}"]  # fmt: skip
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=600)


@contextlib.contextmanager
def watched(path: Path) -> Iterator[None]:
    """Scrape the metrics and ask for `top`, each once a second."""
    end = threading.Event()

    def watch() -> None:
        from proxsmtp_tp.service.control import ask  # noqa: PLC0415
        from proxsmtp_tp.service.metrics_socket import read_metrics  # noqa: PLC0415
        from proxsmtp_tp.service.status import control_path, find_sockets, instance_of, metrics_path  # noqa: PLC0415

        status = next(found for found in find_sockets() if instance_of(found) == path.stem)
        numbers: list[int] = []
        while not end.wait(1.0):
            read_metrics(metrics_path(status))
            numbers = ask(control_path(status), "top", since=numbers)["numbers"]

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()


def measured(rounds: int, messages: int) -> dict[str, list[float]]:
    """By daemon: microseconds of CPU time of a message, in each round."""
    found: dict[str, list[float]] = {"without": [], "counted": [], "watched": []}
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        os.environ["RUNTIME_DIRECTORY"] = os.environ["STATE_DIRECTORY"] = name
        to = stack.enter_context(sink(folder)).port
        subjects = [stack.enter_context(subject(each, folder, to)) for each in found]
        for each in subjects:
            send(each.port, messages)  # caches, and the interpreter's specialised code
        for number in range(rounds):
            for each in subjects[number % 3 :] + subjects[: number % 3]:
                before = each.nanoseconds()
                with watched(each.configuration) if each.name == "watched" else contextlib.nullcontext():
                    send(each.port, messages)
                found[each.name].append((each.nanoseconds() - before) / messages / 1000)
    return found


def answers(times: int = 200) -> dict[str, float]:
    """Milliseconds of CPU time of the master for a scrape, and for an answer to `top` about 1,000 messages."""
    from proxsmtp_tp.service.control import ask  # noqa: PLC0415
    from proxsmtp_tp.service.metrics_socket import read_metrics  # noqa: PLC0415
    from proxsmtp_tp.service.status import control_path, find_sockets, instance_of, metrics_path  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        os.environ["RUNTIME_DIRECTORY"] = os.environ["STATE_DIRECTORY"] = name
        to = stack.enter_context(sink(folder)).port
        daemon = stack.enter_context(subject("watched", folder, to))
        status = next(found for found in find_sockets() if instance_of(found) == daemon.configuration.stem)
        send(daemon.port, 1000)
        found = {}
        for kind in ("scrape", "top"):
            costs = []
            for _ in range(times):
                before = _schedstat(daemon.master)
                if kind == "top":
                    ask(control_path(status), "top", since=[])
                else:
                    read_metrics(metrics_path(status))
                costs.append((_schedstat(daemon.master) - before) / 1e6)
            found[kind] = statistics.quantiles(costs, n=10)[0]
    return found


def show(found: dict[str, list[float]]) -> None:
    """The table."""
    print("| daemon | quickest tenth of rounds | more | median | more | at most |\n|---|---:|---:|---:|---:|---:|")
    tenths = {name: statistics.quantiles(values, n=10)[0] for name, values in found.items()}
    medians = {name: statistics.median(values) for name, values in found.items()}
    for name in found:
        cells = [name]
        for figures in (tenths, medians):
            more = (figures[name] / figures["without"] - 1) * 100
            cells += [f"{figures[name]:.0f} us", f"{more:+.1f} %" if name in _GOALS else ""]
        print(f"| {' | '.join(cells)} | {f'{_GOALS[name]:g} %' if name in _GOALS else ''} |")


def instructions(name: str, messages: int) -> int:
    """Of the only worker of a daemon, from its start to its end, for so many messages."""
    with tempfile.TemporaryDirectory() as given, contextlib.ExitStack() as stack:
        folder = Path(given)
        os.environ["RUNTIME_DIRECTORY"] = os.environ["STATE_DIRECTORY"] = given
        to = stack.enter_context(sink(folder)).port
        port = free_port()
        path = configuration(folder, name, port, to, workers=1)
        log = folder / "log"
        valgrind = ["valgrind", "--tool=cachegrind", "--cache-sim=no", f"--cachegrind-out-file={folder}/out.%p"]
        with log.open("wb") as file:
            process = subprocess.Popen([*valgrind, *command_of(name, path, ticks=False)], stderr=file)
        try:
            wait_for((ADDRESS, port), process, log)
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            send(port, messages, sessions=4)
        finally:
            process.terminate()
            process.wait(300)
        return _counted(log.read_text(), children)


def _counted(log: str, pids: list[str]) -> int:
    found = re.findall(r"==(\d+)== I\s+refs:\s+([\d,]+)", log)
    return sum(int(number.replace(",", "")) for pid, number in found if pid in pids)


def show_instructions(few: int, many: int) -> None:
    """The same table. The difference of two runs is what the messages cost, without start and end."""
    print(f"| daemon | instructions of a message ({many - few} messages) | more than without |\n|---|---:|---:|")
    without = 0.0
    for name in ("without", "counted", "watched"):  # the last one: with limits
        each = (instructions(name, many) - instructions(name, few)) / (many - few)
        without = without or each
        print(f"| {name} | {each:,.0f} | {(each / without - 1) * 100:+.1f} % |", flush=True)


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description="CPU time of a message with and without telemetry")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--messages", type=int, default=500, help="in each round, for each daemon")
    parser.add_argument("--instructions", action="store_true", help="count instructions with valgrind")
    parser.add_argument("--serve", metavar="FILE", help=argparse.SUPPRESS)
    parser.add_argument("--uncounted", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--no-ticks", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        return serve(args.serve, counted=not args.uncounted, ticks=not args.no_ticks)
    needed = ["smtp-source", "smtp-sink", *(["valgrind"] if args.instructions else [])]
    if missing := [tool for tool in needed if shutil.which(tool) is None]:
        print(f"missing: {', '.join(missing)}: install the Debian packages postfix and valgrind", file=sys.stderr)
        return 1
    subprocess.run(["ip", "address", "replace", f"{ADDRESS}/32", "dev", "lo"], check=True)
    print(f"{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} cores", flush=True)
    if args.instructions:
        show_instructions(args.messages // 10, args.messages // 2)
        return 0
    for kind, milliseconds in answers().items():
        print(f"{kind}: {milliseconds:.1f} ms of the master for each answer")
    show(measured(args.rounds, args.messages))
    return 0


if __name__ == "__main__":
    sys.exit(main())
