"""A daemon that was started as root and is not root any more: its workers, what they run, its reloads."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.unit.service.conftest import eventually

if TYPE_CHECKING:
    from tests.unit.service.conftest import Daemon


def may_become_nobody() -> bool:
    """Root, where nobody is a user (not so in a user namespace that maps only root)."""
    ranges = [[int(word) for word in line.split()] for line in Path("/proc/self/uid_map").read_text().splitlines()]
    return os.geteuid() == 0 and any(first <= 65534 < first + count for first, _, count in ranges)


def capabilities(text: str) -> dict[str, int]:
    pairs = (word.partition(":") for word in text.split())
    return {name: int(value, 16) for name, _, value in pairs if name != "CapBnd"}


@pytest.mark.parametrize(("directives", "kept"), [({"OutAddress": 25}, 0), ({"TransparentProxy": "full"}, 1 << 13)])
def test_workers_are_the_user_and_what_they_run_has_no_capability(
    daemon: Daemon, directives: dict[str, object], kept: int
) -> None:
    daemon.configure(User="nobody", **directives)
    if not may_become_nobody():
        daemon.launch()
        if os.geteuid() == 0:
            assert daemon.wait() == 1
            assert "unable to switch to user: nobody" in daemon.log()
        return
    daemon.start()
    client = daemon.connect()
    assert client.ask("USER") == "(65534, 65534, 65534) (65534, 65534, 65534) [65534]"
    for pid in (daemon.master, client.worker):
        lines = Path(f"/proc/{pid}/status").read_text().replace("\t", "").splitlines()
        own = capabilities(" ".join(line for line in lines if line.startswith("Cap")))
        assert own == {"CapInh": 0, "CapPrm": kept, "CapEff": kept, "CapAmb": 0}
    assert capabilities(client.ask("CAPS")) == {"CapInh": 0, "CapPrm": 0, "CapEff": 0, "CapAmb": 0}
    client.close()
    before = daemon.workers()
    daemon.reload()  # without root, and with the files of the interpreter perhaps out of reach
    eventually(lambda: not daemon.workers() & before)
    assert daemon.connect().ask("PING") == "250 PING"


def test_full_mode_cannot_be_had_by_a_reload_once_the_right_is_gone(daemon: Daemon) -> None:
    if may_become_nobody():
        daemon.configure(User="nobody")
        daemon.start()
        daemon.configure(User="nobody", TransparentProxy="full")
        daemon.reload("stays in force\n")
        assert "CAP_NET_RAW, which was given up" in daemon.log()
