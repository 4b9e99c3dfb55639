"""A filter that is tried in a process of the daemon."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.service.control import ControlError, ask
from proxsmtp_tp.service.filter_trials import AT_ONCE
from tests.unit.service.conftest import eventually

if TYPE_CHECKING:
    from tests.unit.service.conftest import Daemon

MESSAGE = b"Subject: hello\n\nbody\n"


def test_in_a_process_of_the_running_daemon(daemon: Daemon) -> None:
    """Its environment and descriptors are those of a worker's filter; the daemon goes on, and nothing is left."""
    daemon.configure(
        FilterCommand="echo $$ $PPID $IN_THE_DAEMON >&2; ls /proc/self/fd | wc -l >&2; printf 'a\\tb\\n' >&2; cat"
    )
    daemon.environment["IN_THE_DAEMON"] = "yes"
    daemon.start()
    message = daemon.folder / "a.eml"
    message.write_bytes(MESSAGE)
    asked = [sys.executable, "-c", "from proxsmtp_tp.cli.main import main; raise SystemExit(main())"]
    asked += ["try-filter", "-f", str(daemon.file), "--json", str(message)]
    environment = os.environ | {"RUNTIME_DIRECTORY": str(daemon.folder)}
    done = subprocess.run(asked, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    answer = json.loads(done.stdout)
    first, descriptors, last = answer["errors"].splitlines()
    assert first.split()[2:] == ["yes"]
    assert int(descriptors) == 4
    assert last == "a\tb"
    assert f"run by the daemon (pid {daemon.master})" in answer["notes"][0]
    assert "run by /bin/sh, because of the character $" in answer["notes"][1]
    assert len(answer["notes"]) == 2
    assert "control: try-filter" in daemon.log()
    assert not [path for path in daemon.folder.iterdir() if path.name.startswith("try-")]
    assert daemon.status()["replaced_workers"] == 0


def test_only_sockets_of_the_command_are_connected_to(daemon: Daemon) -> None:
    daemon.configure(FilterCommand="cat")
    daemon.start()
    for name in ("", "x", "try-/../../x", "/try-x"):
        with pytest.raises(ControlError, match="no socket of try-filter"):
            ask(daemon.folder / "d.control", "try-filter", socket=name)
    assert ask(daemon.folder / "d.control", "try-filter", socket="try-nobody") == {}
    assert daemon.status()["replaced_workers"] == 0


def test_a_trial_that_has_ended_makes_space_for_the_next(daemon: Daemon) -> None:
    """Each of these ends at once, since nobody listens for it."""
    daemon.configure(FilterCommand="cat")
    daemon.start()

    def begin() -> bool:
        try:
            return ask(daemon.folder / "d.control", "try-filter", socket="try-nobody") == {}
        except ControlError as error:
            if str(error) != f"{AT_ONCE} trials run already: try again later":
                raise
            return False

    for _ in range(AT_ONCE + 2):
        assert eventually(begin)
    eventually(lambda: daemon.log().count("try-filter: [Errno 2]") == AT_ONCE + 2, daemon.log())
