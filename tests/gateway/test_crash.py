"""kill -9 at every step of an install or a removal: the next command brings the host back, or to the plan."""

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

    from tests.gateway.rules_host import RulesHost

TPROXY: dict[str, Any] = {"mode": "tproxy", "method": "nftables"}
REDIRECT: dict[str, Any] = {"mode": "redirect", "method": "nftables"}
# The steps of policy routing are the same with both methods; those of iptables are its own.
WHOLE: dict[str, dict[str, Any]] = {
    "nftables": TPROXY | {"local": True, "daemon_uid": 65534},
    "iptables": {"mode": "redirect", "method": "iptables", "local": True, "daemon_uid": 65534},
}


class KillingProcess:
    """The process of `kill_at_step`, in the gateway of a test."""

    def __init__(self, host: RulesHost) -> None:
        command = [
            "ip",
            "netns",
            "exec",
            host.net.gateway,
            sys.executable,
            "-m",
            "tests.gateway.kill_at_step",
            str(host.state),
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
def kill(host: RulesHost) -> Iterator[KillingProcess]:
    """The gateway's `KillingProcess`."""
    found = KillingProcess(host)
    yield found
    found.close()


@pytest.mark.parametrize("method", WHOLE)
def test_every_step_of_an_install(host: RulesHost, kill: KillingProcess, method: str) -> None:
    many = WHOLE[method]
    before = host.snapshot()
    _, steps = kill("install", **many)
    installed = host.snapshot()
    # The state twice with a rename each; eight policy rules, two routes, one load; or three tables of two IP versions.
    assert steps == {"nftables": 15, "iptables": 10}[method]
    kill("remove")
    for at in range(steps):
        assert kill("install", at, **many) == (True, at)
        if at % 2:
            # Sometimes the next thing is an install, and then the removal.
            kill("install", **many)
            assert host.snapshot() == installed, f"killed before step {at}"
        kill("remove")
        assert host.snapshot() == before, f"killed before step {at}"
        assert not list(host.state.glob("*.json"))


@pytest.mark.parametrize("method", WHOLE)
def test_every_step_of_a_removal(host: RulesHost, kill: KillingProcess, method: str) -> None:
    many = WHOLE[method]
    before = host.snapshot()
    kill("install", **many)
    _, steps = kill("remove")
    for at in range(steps):
        kill("install", **many)
        assert kill("remove", at) == (True, at)
        kill("remove")
        assert host.snapshot() == before, f"killed before step {at}"


@pytest.mark.parametrize(
    ("old", "new"),
    [(REDIRECT, TPROXY), (REDIRECT | {"method": "iptables"}, REDIRECT)],
    ids=["mode", "method"],
)
def test_every_step_of_a_change(
    host: RulesHost, kill: KillingProcess, old: dict[str, Any], new: dict[str, Any]
) -> None:
    before = host.snapshot()
    kill("install", **old)
    _, steps = kill("install", **new)
    assert steps >= 11
    for at in range(steps):
        kill("install", **old)
        assert kill("install", at, **new) == (True, at)
        if at % 2:
            kill("install", **new)
            assert host.check(mode=Mode(new["mode"])).in_place, f"killed before step {at}"
        kill("remove")
        assert host.snapshot() == before, f"killed before step {at}"


@pytest.mark.parametrize(("module", "name"), [(nftables, "load"), (routing, "change_route"), (routing, "change_rule")])
@pytest.mark.parametrize("earlier", [False, True], ids=["onto nothing", "onto other rules"])
def test_a_step_that_fails_is_undone(
    host: RulesHost, monkeypatch: pytest.MonkeyPatch, module: Any, name: str, earlier: bool
) -> None:
    if earlier:
        host.install()
    before = host.snapshot()
    original = getattr(module, name)
    calls: list[Any] = []

    def failing(*arguments: Any) -> None:
        calls.append(arguments)
        # The second of several steps, or the only one. The steps that undo it do not fail.
        if len(calls) == (1 if name == "load" else 2):
            raise GatewayError("the kernel said no")
        original(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(module, name, failing)
        with pytest.raises(GatewayError, match=r"the kernel said no \(undone"):
            host.install(mode=Mode.TPROXY)
    assert host.snapshot() == before
    assert bool(list(host.state.glob("*.json"))) is earlier
    assert host.install(mode=Mode.TPROXY).changed


def test_iptables_is_undone_when_its_second_half_fails(host: RulesHost, monkeypatch: pytest.MonkeyPatch) -> None:
    host.install(method=Method.IPTABLES)
    before = host.snapshot()
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
            host.install(method=Method.IPTABLES, ports=(25, 587))
    assert host.snapshot() == before


def test_a_damaged_state_file_is_no_obstacle(host: RulesHost) -> None:
    before = host.snapshot()
    host.install(mode=Mode.TPROXY)
    (path,) = host.state.glob("*.json")
    for text in ("", "{", "[]", '{"version": 99}', '{"version": 1, "phase": "installed", "plan": {"slot": "x"}}'):
        path.write_text(text)
        assert host.install(mode=Mode.TPROXY).changed
        path.write_text(text)
        assert host.remove().changed
        assert host.snapshot() == before
        host.install(mode=Mode.TPROXY)
    host.remove()


def test_what_was_deleted_by_hand_is_no_obstacle(host: RulesHost) -> None:
    own = Numbers(preferred_slot("test"))
    gateway = host.net.gateway
    before = host.snapshot()
    for command in (
        ("nft", "delete", "table", "inet", "proxsmtp_test"),
        ("nft", "flush", "ruleset"),
        ("ip", "rule", "del", "priority", str(own.priority)),
        ("ip", "-6", "route", "flush", "table", str(own.table)),
        ("ip", "link", "del", "lan0"),
    ):
        host.install(mode=Mode.TPROXY)
        run(gateway, *command)
        if command[1] != "link":
            found = host.check(mode=Mode.TPROXY)
            assert found.differences, command
        host.remove()
        if command[1] != "link":
            assert host.snapshot() == before, command
    assert host.check(mode=Mode.TPROXY).absent
