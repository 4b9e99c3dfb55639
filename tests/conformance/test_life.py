"""The daemon from start to end: pid file, signals, going to the background, syslog, user, limits.

Each test runs against 1.10 and against ours, and says where they differ.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conformance.harness.daemon import (
    CLIENT,
    ENVIRONMENT,
    STOP_LIMIT,
    Daemon,
    DaemonError,
    exists,
    free_port,
    program,
    running,
    wait_for,
)
from tests.conformance.harness.mail import deliver, sink
from tests.conformance.harness.peer import LIMIT, Peer
from tests.conformance.harness.script import Side

if TYPE_CHECKING:
    from collections.abc import Iterator

GREETING = b"220 mx.example ESMTP\r\n"
both = pytest.mark.parametrize("side", Side, ids=lambda side: side.value)


def pid_of(file: Path) -> int | None:
    """The process id in that file, None while there is none."""
    with suppress(OSError, ValueError):
        return int(file.read_text("ascii"))
    return None


@both
def test_pid_file_is_written_and_removed(side: Side) -> None:
    with running(side, []) as daemon:
        assert daemon.process is not None
        assert daemon.pid_file.read_text("ascii") == f"{daemon.process.pid}\n"
        daemon.process.terminate()
        assert daemon.process.wait(STOP_LIMIT) == 0
        assert not daemon.pid_file.exists()


@both
def test_pid_file_of_the_configuration_overrides_the_option(side: Side) -> None:
    daemon = Daemon(side, ["PidFile: {dir}/other"], level=1)
    # `start` waits for the file of -p, which never comes: the other one is what is waited for here.
    daemon.ready_file = daemon.directory / "other"
    try:
        daemon.start()
        assert daemon.process is not None
        assert pid_of(daemon.directory / "other") == daemon.process.pid
        assert not daemon.pid_file.exists()
        assert "ignoring pid file specified on the command line" in daemon.log()
    finally:
        daemon.stop()


@both
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_signals_that_end_it(side: Side, number: signal.Signals) -> None:
    with running(side, [], level=4) as daemon:
        assert daemon.process is not None
        daemon.process.send_signal(number)
        assert daemon.process.wait(STOP_LIMIT) == 0
        assert "stopped processing" in daemon.log()


@both
def test_term_ends_idle_connections(side: Side) -> None:
    """1.10 closes without a reply; ours sends 421 (RFC 5321 section 3.8)."""
    with running(side, []) as daemon:
        client, server = daemon.client(), daemon.server()
        server.send(GREETING)
        assert client.hear() == "220 smtp.passthru"
        assert daemon.process is not None
        daemon.process.terminate()
        assert client.hear()[:4] == ("" if side is Side.ORIGINAL else "421 ")
        server.close()
        client.close()
        assert daemon.process.wait(STOP_LIMIT) == 0


@both
def test_hup_reads_the_configuration_again(side: Side) -> None:
    """1.10 ignores HUP; ours uses a valid new file, and keeps the old configuration if the new file is wrong."""
    with running(side, ["FilterType: pipe"]) as daemon, sink(daemon.listener):
        assert daemon.process is not None
        configuration = daemon.directory / "conf"
        text = configuration.read_text("utf-8")

        configuration.write_text(text.replace("FilterType: pipe", "FilterType: nonsense"), "utf-8")
        daemon.process.send_signal(signal.SIGHUP)
        if side is Side.OURS:
            wait_for("the reload to fail", lambda: "the old one stays in force" in daemon.log())
            assert re.search(r"conf:[0-9]+: FilterType", daemon.log())
        assert deliver(daemon.client()) == "250 Ok"

        configuration.write_text(text.replace("FilterType: pipe", "FilterType: reject"), "utf-8")
        daemon.process.send_signal(signal.SIGHUP)
        if side is Side.OURS:
            wait_for("the new configuration", lambda: "the new configuration is in force" in daemon.log())
        assert deliver(daemon.client()) == ("250 Ok" if side is Side.ORIGINAL else "530 Email Rejected")
        assert daemon.alive


@both
def test_max_connections(side: Side) -> None:
    """One more than MaxConnections gets 421, and is an error in the log; a place that becomes free is given again."""
    with running(side, ["MaxConnections: 2"], level=0) as daemon:
        pairs = []
        for _ in range(2):
            pairs.append((daemon.client(), daemon.server()))
            pairs[-1][1].send(GREETING)
            assert pairs[-1][0].hear() == "220 smtp.passthru"
        third = daemon.client()
        assert third.hear().startswith("421 ")
        assert third.rest() == b""
        assert third.ended
        wait_for("the log", lambda: re.search("too many connections|MaxConnections", daemon.log()))
        client, server = pairs[0]
        client.close()
        assert server.rest() in {b"", b"QUIT\r\n"}
        assert server.ended

        def greeted() -> bool:
            fourth = daemon.client()
            with suppress(TimeoutError):
                daemon.server(0.2).send(GREETING)
            return fourth.hear() == "220 smtp.passthru"

        wait_for("the free place", greeted)


@both
def test_max_connections_is_64_by_default(side: Side) -> None:
    with running(side, []) as daemon:
        for _ in range(64):
            client = daemon.client()
            daemon.server().send(GREETING)
            assert client.hear() == "220 smtp.passthru"
        assert daemon.client().hear().startswith("421 ")


@both
def test_listen_is_port_10025_on_all_addresses_by_default(side: Side, tmp_path: Path) -> None:
    """In a network namespace of its own, where the port is free. 1.10 knows IPv4 only."""
    (tmp_path / "conf").write_text("OutAddress: 127.0.0.1:25\n", "ascii")
    pid_file = tmp_path / "pid"
    command = ["unshare", "--net", str(program(side)), "-d", "0", "-f", str(tmp_path / "conf"), "-p", str(pid_file)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, env=ENVIRONMENT) as process:
        try:
            wait_for("the pid file", lambda: pid_of(pid_file))
            listening = {version: listening_on(process.pid, version) for version in ("tcp", "tcp6")}
        finally:
            process.terminate()
    v6 = {":".join(("0" * 32, f"{10025:04X}"))}
    assert listening == {"tcp": {f"00000000:{10025:04X}"}, "tcp6": v6 if side is Side.OURS else set()}


def listening_on(pid: int, version: str) -> set[str]:
    """The local addresses in state LISTEN (0A) in that process's network namespace, as proc(5) writes them."""
    lines = Path(f"/proc/{pid}/net/{version}").read_text("ascii").splitlines()[1:]
    return {fields[1] for fields in (line.split() for line in lines) if fields[3] == "0A"}


@pytest.mark.timeout(180)
def test_exit_codes_of_filters_that_end_together() -> None:
    """Each message gets its own filter's verdict. 1.10 loses exit codes here, and delivers what was refused."""
    refuse = "FilterCommand: cat >/dev/null; echo 'no, thank you' >&2; exit 1"
    with running(Side.OURS, [refuse]) as daemon, sink(daemon.listener) as server, ThreadPoolExecutor(12) as clients:
        answers = list(clients.map(lambda _: deliver(daemon.client()), range(12)))
    assert answers == ["550 Content Rejected; no, thank you"] * 12
    assert not server.messages


def start_as_daemon(
    side: Side, directory: Path, arguments: list[str], prefix: list[str]
) -> subprocess.CompletedProcess[str]:
    """Run the command without -d: it returns, and leaves a daemon behind."""
    command = [*prefix, str(program(side)), *arguments]
    return subprocess.run(
        command, cwd=directory, env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=False
    )


def stop_daemon(pid_file: Path) -> None:
    """End the daemon that this file names."""
    pid = pid_of(pid_file)
    if pid is None:
        return
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    wait_for("the daemon to end", lambda: not exists(pid), limit=STOP_LIMIT)


@both
def test_without_d_it_becomes_a_daemon(side: Side, tmp_path: Path) -> None:
    """The command returns 0; the daemon has a session of its own, / for its directory, and no terminal."""
    tmp_path.chmod(0o755)
    pid_file = tmp_path / "pid"
    (tmp_path / "conf").write_text(f"Listen: 127.0.0.1:{free_port()}\nOutAddress: 127.0.0.1:25\n", "ascii")
    try:
        done = start_as_daemon(side, tmp_path, ["-f", str(tmp_path / "conf"), "-p", str(pid_file)], [])
        assert done.returncode == 0, done.stderr
        wait_for("the pid file", lambda: pid_of(pid_file))
        pid = pid_of(pid_file)
        assert pid is not None
        assert os.getsid(pid) != os.getsid(0)
        assert Path(f"/proc/{pid}/cwd").readlink() == Path("/")
        assert {Path(f"/proc/{pid}/fd/{number}").readlink() for number in range(3)} == {Path(os.devnull)}
    finally:
        stop_daemon(pid_file)
    assert not pid_file.exists()


@both
@pytest.mark.parametrize("options", [[], ["-d", "4"]], ids=["daemon", "foreground"])
def test_it_needs_no_standard_streams(side: Side, options: list[str], tmp_path: Path) -> None:
    """A starter that closes all three: nothing of the daemon's takes their numbers for a peer or a file."""
    pid_file = tmp_path / "pid"
    with socket.create_server(("127.0.0.3", 0)) as server:
        port = free_port()
        text = f"Listen: 127.0.0.1:{port}\nOutAddress: 127.0.0.3:{server.getsockname()[1]}\nFilterCommand: cat\n"
        (tmp_path / "conf").write_text(text, "ascii")
        closed = '"$@" <&- >&- 2>&-' + (" &" if options else "")
        arguments = [*options, "-f", str(tmp_path / "conf"), "-p", str(pid_file)]
        try:
            done = start_as_daemon(side, tmp_path, arguments, ["/bin/sh", "-c", closed, "sh"])
            assert done.returncode == 0, done.stderr
            wait_for("the pid file", lambda: pid_of(pid_file))
            with sink(server):
                client = Peer(socket.create_connection(("127.0.0.1", port), LIMIT, (CLIENT, 0)))
                assert deliver(client) == "250 Ok"
        finally:
            stop_daemon(pid_file)


@both
def test_a_pid_file_that_a_killed_daemon_left_is_taken_over(side: Side, tmp_path: Path) -> None:
    """Whatever is in it; its mode stays."""
    stale = tmp_path / "pid"
    stale.write_text("4194305\nand something else\n", "ascii")
    stale.chmod(0o600)
    (tmp_path / "conf").write_text(f"Listen: 127.0.0.1:{free_port()}\nOutAddress: 127.0.0.1:25\n", "ascii")
    try:
        done = start_as_daemon(side, tmp_path, ["-f", str(tmp_path / "conf"), "-p", str(stale)], [])
        assert done.returncode == 0, done.stderr
        wait_for("the pid file", lambda: pid_of(stale))
        pid = pid_of(stale)
        assert pid is not None
        assert str(tmp_path / "conf").encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
        assert stale.read_text("ascii") == f"{pid}\n"
        assert stale.stat().st_mode & 0o777 == 0o600
    finally:
        stop_daemon(stale)
    assert not stale.exists()


@both
def test_a_daemon_that_cannot_listen(side: Side, tmp_path: Path) -> None:
    """1.10 exits with 0 although it does not run; ours fails with the reason."""
    configuration = tmp_path / "conf"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        configuration.write_text(f"Listen: 127.0.0.1:{port}\nOutAddress: 127.0.0.1:25\n", "ascii")
        done = start_as_daemon(side, tmp_path, ["-f", str(configuration)], [])
        # The port stays taken until the daemon has tried, and has gone.
        wait_for("the daemon to give up", lambda: not processes_with(str(configuration)))
    if side is Side.ORIGINAL:
        assert done.returncode == 0
    else:
        assert done.returncode == 1
        assert f"127.0.0.1:{port}" in done.stderr


def processes_with(argument: str) -> list[Path]:
    """The processes that have this on their command line."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if argument.encode() in (process / "cmdline").read_bytes().split(b"\0"):
                found.append(process)
    return found


LOG_NAMESPACE = """\
set -e
mkdir "$1/dev"
mount --rbind /dev "$1/dev"
mount -t tmpfs tmpfs /dev
mkdir /dev/shm
for device in null zero full random urandom tty; do
    [ -e "$1/dev/$device" ] && : >/dev/$device && mount --bind "$1/dev/$device" /dev/$device
done
ln -s /proc/self/fd /dev/fd
ln -s "$1/log" /dev/log
shift
exec "$@"
"""
"""A /dev of its own, where /dev/log is a socket of the test."""


@contextmanager
def message_through_a_daemon(side: Side, folder: Path, command: str) -> Iterator[str]:
    """A daemon whose /dev/log is `folder`/log takes one message to the filter `command`: what the client was told."""
    folder.chmod(0o755)
    pid_file = folder / "pid"
    with socket.create_server(("127.0.0.3", 0)) as server:
        port = free_port()
        text = f"Listen: 127.0.0.1:{port}\nOutAddress: 127.0.0.3:{server.getsockname()[1]}\nFilterCommand: {command}\n"
        (folder / "conf").write_text(text, "ascii")
        namespace = ["unshare", "--mount", "/bin/sh", "-c", LOG_NAMESPACE, "sh", str(folder)]
        try:
            done = start_as_daemon(side, folder, ["-f", str(folder / "conf"), "-p", str(pid_file)], namespace)
            assert done.returncode == 0, done.stderr
            wait_for("the pid file", lambda: pid_of(pid_file))
            with sink(server):
                yield deliver(Peer(socket.create_connection(("127.0.0.1", port), LIMIT, (CLIENT, 0))))
        finally:
            stop_daemon(pid_file)


@both
def test_a_daemon_logs_to_syslog(side: Side, tmp_path: Path) -> None:
    """Facility mail, up to informational messages, with the daemon's name; nothing of debugging."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        log.bind(str(tmp_path / "log"))
        (tmp_path / "log").chmod(0o666)
        log.settimeout(LIMIT)
        with message_through_a_daemon(side, tmp_path, "cat >/dev/null; echo '554 5.7.1 spam' >&2; exit 1") as answer:
            assert answer == "554 5.7.1 spam"
            lines: list[bytes] = []
            while not any(b"status=" in line for line in lines):
                lines.append(log.recv(65536))
    mail_info = b"<22>"  # facility mail (2) * 8 + informational (6): RFC 3164 section 4.1.1
    (told,) = (line for line in lines if b"status=" in line)
    assert told.startswith(mail_info)
    assert re.search(rb" proxsmtpd(\[[0-9]+\])?: [0-9A-F]+: client=127\.0\.0\.9, from=sender@client\.example", told)
    assert b"status=554 5.7.1 spam" in told
    assert not any(b"MAIL FROM" in line for line in lines)


@both
def test_a_daemon_logs_to_a_stream(side: Side, tmp_path: Path) -> None:
    """As syslog(3), which 1.10 calls: a NUL ends each line."""
    with log_stream(tmp_path / "log") as lines, message_through_a_daemon(side, tmp_path, "cat") as answer:
        assert answer == "250 Ok"
        wait_for("the line", lambda: any(b"status=FILTERED" in line for line in lines))
        (told,) = (line for line in lines if b"status=FILTERED" in line)
    assert re.fullmatch(rb"<22>.* proxsmtpd(\[[0-9]+\])?: [0-9A-F]+: client=127\.0\.0\.9, .*", told)


def test_lines_from_before_the_log_daemon_came(tmp_path: Path) -> None:
    """Each process sends its own lines once: the worker does not repeat the lines that the master logged before the
    fork."""
    with message_through_a_daemon(Side.OURS, tmp_path, "cat") as answer, log_stream(tmp_path / "log") as lines:
        assert answer == "250 Ok"
        wait_for("the message's line", lambda: any(b"status=FILTERED" in line for line in lines))
        wait_for("the master's line", lambda: any(b"running as root" in line for line in lines))
    assert sum(b"running as root" in line for line in lines) == 1


@contextmanager
def log_stream(path: Path) -> Iterator[list[bytes]]:
    """A log daemon on a stream socket: the lines that it has been sent so far."""
    lines: list[bytes] = []
    links: list[socket.socket] = []
    with socket.socket(socket.AF_UNIX) as listener, ThreadPoolExecutor(16) as readers:
        listener.bind(str(path))
        path.chmod(0o666)
        listener.listen()

        def read(link: socket.socket) -> None:
            data = b""
            while more := link.recv(4096):
                *whole, data = (data + more).split(b"\0")
                lines.extend(whole)

        def accept() -> None:
            with suppress(OSError):
                while True:
                    links.append(listener.accept()[0])
                    readers.submit(read, links[-1])

        readers.submit(accept)
        try:
            yield lines
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            for link in links:
                link.shutdown(socket.SHUT_RDWR)
    for link in links:
        link.close()


@both
def test_a_daemon_runs_without_a_log_daemon(side: Side, tmp_path: Path) -> None:
    """Nobody listens on /dev/log: mail passes nevertheless."""
    with message_through_a_daemon(side, tmp_path, "cat") as answer:
        assert answer == "250 Ok"
    assert not (tmp_path / "pid").exists()


def may_be_another_user() -> bool:
    """Whether there is a second user here: in a user namespace of an ordinary user there is none."""
    mapped = [line.split() for line in Path("/proc/self/uid_map").read_text("ascii").splitlines()]
    return os.geteuid() == 0 and any(int(start) <= 65534 < int(start) + int(count) for start, _, count in mapped)


@both
@pytest.mark.parametrize("user", ["nobody", "65534"])
def test_user(side: Side, user: str) -> None:
    """Root drops its rights to the user, by name or number; where it cannot, it does not run at all."""
    daemon = Daemon(side, [f"User: {user}"])
    daemon.directory.chmod(0o777)
    try:
        if may_be_another_user():
            shutil.chown(daemon.directory, 65534, 65534)
            daemon.start()
            assert daemon.process is not None
            status = Path(f"/proc/{daemon.process.pid}/status").read_text("ascii")
            assert re.search(r"^Uid:\t65534\t65534\t65534\t65534$", status, re.MULTILINE)
            assert re.search(r"^Gid:\t65534\t65534\t65534\t65534$", status, re.MULTILINE)
        else:
            with pytest.raises(DaemonError, match=r"(?i)user|privilege"):
                daemon.start()
    finally:
        daemon.stop()
