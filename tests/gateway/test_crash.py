"""kill -9 at every step that an install or a removal takes: what comes after it brings the box back, or to the plan."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from proxsmtp_tp.gateway import iptables, nftables, routing
from proxsmtp_tp.gateway.errors import GatewayError
from proxsmtp_tp.gateway.plan import Method, Mode, Numbers, preferred_slot
from tests.gateway.network import run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.gateway.box import Box

TPROXY: dict[str, Any] = {"mode": "tproxy", "method": "nftables"}
REDIRECT: dict[str, Any] = {"mode": "redirect", "method": "nftables"}
# The steps of policy routing are the same with both methods; those of iptables are its own.
WHOLE: dict[str, dict[str, Any]] = {
    "nftables": TPROXY | {"local": True, "daemon_uid": 65534},
    "iptables": {"mode": "redirect", "method": "iptables", "local": True, "daemon_uid": 65534},
}


class Killing:
    """The process of `killing`, in the gateway of a test."""

    def __init__(self, box: Box) -> None:
        command = [
            "ip",
            "netns",
            "exec",
            box.net.gateway,
            sys.executable,
            "-m",
            "tests.gateway.killing",
            str(box.state),
        ]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self, action: str, at: int | None = None, **changes: Any) -> tuple[bool, int]:
        """Do it, to be killed before step `at`; whether that came, and the steps that were taken."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([action, changes, at]) + "\n")
        self._process.stdin.flush()
        killed, steps = json.loads(self._process.stdout.readline())
        assert steps >= 0, "the job failed"
        return killed, steps

    def close(self) -> None:
        """End it."""
        self._process.communicate()


@pytest.fixture
def kill(box: Box) -> Iterator[Killing]:
    """The gateway's `Killing`."""
    found = Killing(box)
    yield found
    found.close()


@pytest.mark.parametrize("method", WHOLE)
def test_every_step_of_an_install(box: Box, kill: Killing, method: str) -> None:
    many = WHOLE[method]
    before = box.snapshot()
    _, steps = kill("install", **many)
    installed = box.snapshot()
    # The state twice with a rename each; eight policy rules, two routes, one load; or three tables of two IP versions.
    assert steps == {"nftables": 15, "iptables": 10}[method]
    kill("remove")
    for at in range(steps):
        assert kill("install", at, **many) == (True, at)
        if at % 2:
            # Sometimes the next thing is an install, and then the removal.
            kill("install", **many)
            assert box.snapshot() == installed, f"killed before step {at}"
        kill("remove")
        assert box.snapshot() == before, f"killed before step {at}"
        assert not list(box.state.glob("*.json"))


@pytest.mark.parametrize("method", WHOLE)
def test_every_step_of_a_removal(box: Box, kill: Killing, method: str) -> None:
    many = WHOLE[method]
    before = box.snapshot()
    kill("install", **many)
    _, steps = kill("remove")
    for at in range(steps):
        kill("install", **many)
        assert kill("remove", at) == (True, at)
        kill("remove")
        assert box.snapshot() == before, f"killed before step {at}"


@pytest.mark.parametrize(
    ("old", "new"),
    [(REDIRECT, TPROXY), (REDIRECT | {"method": "iptables"}, REDIRECT)],
    ids=["mode", "method"],
)
def test_every_step_of_a_change(box: Box, kill: Killing, old: dict[str, Any], new: dict[str, Any]) -> None:
    before = box.snapshot()
    kill("install", **old)
    _, steps = kill("install", **new)
    assert steps >= 11
    for at in range(steps):
        kill("install", **old)
        assert kill("install", at, **new) == (True, at)
        if at % 2:
            kill("install", **new)
            assert box.check(mode=Mode(new["mode"])).in_place, f"killed before step {at}"
        kill("remove")
        assert box.snapshot() == before, f"killed before step {at}"


@pytest.mark.parametrize(("module", "name"), [(nftables, "load"), (routing, "change_route"), (routing, "change_rule")])
@pytest.mark.parametrize("earlier", [False, True], ids=["onto nothing", "onto other rules"])
def test_a_step_that_fails_is_undone(
    box: Box, monkeypatch: pytest.MonkeyPatch, module: Any, name: str, earlier: bool
) -> None:
    if earlier:
        box.install()
    before = box.snapshot()
    original = getattr(module, name)
    calls: list[Any] = []

    def failing(*arguments: Any) -> None:
        calls.append(arguments)
        # The second of several, or the only one; the undoing works.
        if len(calls) == (1 if name == "load" else 2):
            raise GatewayError("the kernel said no")
        original(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(module, name, failing)
        with pytest.raises(GatewayError, match=r"the kernel said no \(undone"):
            box.install(mode=Mode.TPROXY)
    assert box.snapshot() == before
    assert bool(list(box.state.glob("*.json"))) is earlier
    assert box.install(mode=Mode.TPROXY).changed


def test_iptables_is_undone_when_its_second_half_fails(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    box.install(method=Method.IPTABLES)
    before = box.snapshot()
    original = iptables.work
    failed: list[Any] = []

    def failing(jobs: list[dict[str, Any]], *, scratch: bool = False) -> list[dict[str, Any]]:
        if not scratch and jobs and jobs[0]["action"] == "replace" and not failed:
            failed.append(original(jobs[:1]))
            raise GatewayError("no IPv6 today")
        return original(jobs, scratch=scratch)

    with monkeypatch.context() as patched:
        patched.setattr(iptables, "work", failing)
        with pytest.raises(GatewayError, match="no IPv6 today"):
            box.install(method=Method.IPTABLES, ports=(25, 587))
    assert box.snapshot() == before


def test_a_damaged_state_file_is_no_obstacle(box: Box) -> None:
    before = box.snapshot()
    box.install(mode=Mode.TPROXY)
    (path,) = box.state.glob("*.json")
    for text in ("", "{", "[]", '{"version": 99}', '{"version": 1, "phase": "installed", "plan": {"slot": "x"}}'):
        path.write_text(text)
        assert box.install(mode=Mode.TPROXY).changed
        path.write_text(text)
        assert box.remove().changed
        assert box.snapshot() == before
        box.install(mode=Mode.TPROXY)
    box.remove()


def test_what_somebody_deleted_by_hand_is_no_obstacle(box: Box) -> None:
    own = Numbers(preferred_slot("test"))
    gateway = box.net.gateway
    before = box.snapshot()
    for command in (
        ("nft", "delete", "table", "inet", "proxsmtp_test"),
        ("nft", "flush", "ruleset"),
        ("ip", "rule", "del", "priority", str(own.priority)),
        ("ip", "-6", "route", "flush", "table", str(own.table)),
        ("ip", "link", "del", "lan0"),
    ):
        box.install(mode=Mode.TPROXY)
        run(gateway, *command)
        if command[1] != "link":
            found = box.check(mode=Mode.TPROXY)
            assert found.differences, command
        box.remove()
        if command[1] != "link":
            assert box.snapshot() == before, command
    assert box.check(mode=Mode.TPROXY).absent
