"""HUP: new workers with the new settings, or no change; and no client is refused meanwhile."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from tests.unit.service.conftest import WAIT_SECONDS, eventually

if TYPE_CHECKING:
    from tests.unit.service.conftest import Daemon


def test_reload_takes_the_new_and_lets_the_old_finish(daemon: Daemon) -> None:
    daemon.start()
    new, served, busy = daemon.connect(), daemon.connect(), daemon.connect()
    assert served.ask("DONE") == "250 DONE"
    assert busy.ask("BUSY") == "250 BUSY"
    before = daemon.workers()
    daemon.configure(MaxConnections=7, Workers=3)
    daemon.reload()
    assert served.line() == "421 draining"
    assert new.ask("BUSY") == "250 BUSY"
    assert new.ask("DONE") == "250 DONE"
    assert new.line() == "421 draining"
    daemon.connect_to_another(before)
    eventually(lambda: len(daemon.workers()) == 4)  # three new ones, and the old one that is busy
    assert daemon.workers() & before == {busy.worker}
    assert daemon.status()["max_connections"] == 7
    eventually(lambda: daemon.status()["connections"] == 2)
    assert busy.ask("DONE") == "250 DONE"
    assert busy.line() == "421 draining"
    eventually(lambda: len(daemon.workers()) == 3)


def test_no_client_is_refused_during_reloads(daemon: Daemon) -> None:
    daemon.configure(MaxConnections=1000)
    daemon.start()
    over = threading.Event()
    greetings: list[str] = []

    def keep_coming() -> None:
        while not over.is_set():
            client = daemon.connect()
            greetings.append(client.greeting)
            client.close()

    thread = threading.Thread(target=keep_coming)
    thread.start()
    try:
        for _ in range(3):
            daemon.reload()
    finally:
        over.set()
        thread.join(WAIT_SECONDS)
    assert len(greetings) > 10
    assert len({greeting.split()[1] for greeting in greetings}) > 2  # more than one generation took part
    assert all(re.match(r"220 \d+$", greeting) for greeting in greetings)


def test_reload_moves_the_listener(daemon: Daemon) -> None:
    daemon.start()
    other = str(daemon.folder / "other")
    daemon.configure(Listen=other)
    daemon.reload()
    assert daemon.connect(other).ask("PING") == "250 PING"
    eventually(daemon.refuses)
    assert daemon.status()["listen"] == [other]


def test_a_bad_file_changes_nothing_and_all_of_it_is_said(daemon: Daemon) -> None:
    daemon.start()
    client = daemon.connect()
    before = daemon.workers()
    daemon.configure(TimeOut="x", Foo=1)
    daemon.reload("stays in force\n")
    assert f"{daemon.file}:5: TimeOut: 'x'" in daemon.log()
    assert f"{daemon.file}:6: Foo: no such directive" in daemon.log()
    assert client.ask("PING") == "250 PING"
    assert daemon.workers() == before
    daemon.configure(MaxConnections=9)
    daemon.reload("is in force\n")
    assert daemon.status()["max_connections"] == 9


def test_a_listener_that_cannot_be_had_changes_nothing(daemon: Daemon) -> None:
    daemon.start()
    before = daemon.workers()
    daemon.configure(Listen=f"{daemon.socket} /nowhere/x", MaxConnections=9)
    daemon.reload("stays in force\n")
    assert "Listen /nowhere/x: No such file or directory" in daemon.log()
    assert daemon.workers() == before
    assert daemon.status()["max_connections"] == 64
    assert daemon.connect().ask("PING") == "250 PING"


def test_new_workers_that_do_not_start_change_nothing(daemon: Daemon) -> None:
    daemon.start()
    client = daemon.connect()
    before = daemon.workers()
    other = str(daemon.folder / "other")
    daemon.configure(Listen=f"{daemon.socket} {other}", Header="X-Fail: /", MaxConnections=9)
    daemon.reload("the new workers do not start")
    assert client.ask("PING") == "250 PING"
    eventually(lambda: daemon.workers() == before)
    assert daemon.status()["max_connections"] == 64
    assert daemon.connect().ask("PING") == "250 PING"
    eventually(lambda: daemon.refuses(other))
    assert not Path(other).exists()
    assert "asked to fail\\nat the start" in daemon.log()  # a traceback is one line


def test_what_needs_a_restart_is_said_and_the_rest_is_taken(daemon: Daemon) -> None:
    daemon.start()
    daemon.configure(Instance="other", MaxConnections=9)
    daemon.reload()
    assert "Instance: the change needs a restart" in daemon.log()
    assert daemon.status()["instance"] == "d"
    assert daemon.status()["max_connections"] == 9


def test_many_reloads_in_a_row_end_well(daemon: Daemon) -> None:
    daemon.start()
    for _ in range(20):
        daemon.signal(signal.SIGHUP)
    daemon.configure(MaxConnections=9)
    daemon.reload()
    eventually(lambda: daemon.status()["max_connections"] == 9)
    eventually(lambda: len(daemon.workers()) == 2)
    assert daemon.connect().ask("PING") == "250 PING"


_COMMAND = "from proxsmtp_tp.cli.main import main; raise SystemExit(main())"


def run_reload(daemon: Daemon) -> subprocess.CompletedProcess[str]:
    """What `systemctl reload` runs."""
    return subprocess.run(
        [sys.executable, "-c", _COMMAND, "reload", "-f", str(daemon.file)],
        env=daemon.environment,
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
        timeout=WAIT_SECONDS * 2,
    )


def test_the_reload_command_fails_with_the_daemons_reason(daemon: Daemon) -> None:
    daemon.start()
    assert daemon.status()["configuration"]["file_state"] == "in force"
    since = daemon.status()["configuration"]["since"]
    # The file is wrong: the daemon is not even asked.
    daemon.configure(TimeOut="x")
    done = run_reload(daemon)
    assert done.returncode == 2
    assert f"{daemon.file}:5: TimeOut: 'x'" in done.stderr
    assert "the old configuration stays in force" in done.stderr
    found = daemon.status()["configuration"]
    assert (found["file_state"], found["reload"]["number"]) == ("wrong", 0)
    assert "TimeOut" in found["file_problems"][0]
    # The file is fine, and the daemon cannot use it: nothing can listen in a folder that is not there.
    daemon.configure(Listen=daemon.folder / "nowhere" / "socket")
    done = run_reload(daemon)
    assert done.returncode == 1
    assert "nowhere/socket" in done.stderr
    found = daemon.status()["configuration"]
    assert (found["file_state"], found["since"]) == ("changed", since)
    assert (found["reload"]["number"], found["reload"]["state"]) == (1, "failed")
    # Its workers do not start.
    flag = daemon.folder / "fail"
    flag.touch()
    daemon.configure(Header=f"X-Fail: {flag}")
    assert run_reload(daemon).returncode == 1
    assert "the log says why" in daemon.status()["configuration"]["reload"]["problems"][0]
    flag.unlink()
    daemon.configure(MaxConnections=7, PidFile=daemon.folder / "pid")
    done = run_reload(daemon)
    assert (done.returncode, done.stdout) == (0, f"{daemon.file} is in force\n")
    assert "used after a restart only: PidFile" in done.stderr
    found = daemon.status()["configuration"]
    assert (found["file_state"], found["needs_restart"]) == ("in force", ["PidFile"])
    assert daemon.status()["max_connections"] == 7
    # By a signal, as with 1.10: the outcome is shown, too.
    daemon.configure(MaxConnections=8)
    assert daemon.status()["configuration"]["file_state"] == "changed"
    daemon.reload()
    found = daemon.status()["configuration"]
    assert (found["file_state"], found["needs_restart"], found["reload"]["state"]) == ("in force", [], "done")
    daemon.file.unlink()
    assert daemon.status()["configuration"]["file_state"] == "wrong"
