"""Commands at the same time: instances that reload, remove and install, in one network namespace and in several."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from proxsmtp_tp.gateway.errors import GatewayError
from proxsmtp_tp.gateway.plan import SLOTS, preferred_slot
from proxsmtp_tp.gateway.state import Store
from tests.gateway.commands import end, start, watchdogs
from tests.gateway.network import inside, run
from tests.gateway.rules_host import within

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.gateway.rules_host import RulesHost

ROUNDS = 4
INSTANCES = {"one": ("25", "10025"), "two": ("587", "10026"), "three": ("465", "10027")}


def rules_of(instance: str, **more: str) -> list[str]:
    """The options of one instance."""
    port, listen_port = INSTANCES[instance]
    given = {"instance": instance, "interface": "lan0", "port": port, "listen-port": listen_port} | more
    return [f"--{name}={value}" for name, value in given.items()]


def all_at_once(host: RulesHost, command: str, **more: str) -> list[tuple[int, str, str]]:
    """The same command for every instance; how each ended."""
    processes = [start(host.net.gateway, host.state, command, *rules_of(name, **more)) for name in INSTANCES]
    return [end(process) for process in processes]


@pytest.mark.parametrize("method", ["nftables", "iptables"])
def test_instances_that_reload_at_once_are_all_in_place(host: RulesHost, method: str) -> None:
    before = host.snapshot()
    for _ in range(ROUNDS):
        # As `systemctl reload nftables`: a flush, and all our units follow.
        run(host.net.gateway, "nft", "flush", "ruleset")
        assert [status for status, *_ in all_at_once(host, "install-rules", method=method)] == [0, 0, 0]
        assert [said.splitlines()[0] for _, said, _ in all_at_once(host, "check-rules", method=method)] == [
            f"rules of instance {name}: in place" for name in INSTANCES
        ]
    assert [said for _, said, _ in all_at_once(host, "remove-rules")] == [
        f"rules of instance {name}: removed\n" for name in INSTANCES
    ]
    assert host.snapshot() == before
    assert not host.state.exists()


def test_instances_that_begin_at_once_take_different_numbers(host: RulesHost) -> None:
    (first, *rest) = (f"i{n}" for n in range(20 * SLOTS))
    second = next(name for name in rest if preferred_slot(name) == preferred_slot(first))
    processes = [
        start(host.net.gateway, host.state, "install-rules", "--mode=tproxy", f"--instance={name}", *ports)
        for name, ports in (
            (first, ["--interface=lan0"]),
            (second, ["--interface=lan0", "--port=587", "--listen-port=10026"]),
        )
    ]
    assert [end(process)[0] for process in processes] == [0, 0]
    slots = [json.loads(path.read_text())["plan"]["slot"] for path in host.state.glob("*.json")]
    assert len(set(slots)) == 2
    # Three policy rules each.
    assert run(host.net.gateway, "ip", "-4", "rule", "show").count("proto 25") == 6


class Holder:
    """A process that holds the lock of a network namespace."""

    def __init__(self, namespace: str, state: Path) -> None:
        code = (
            "import sys; from pathlib import Path; from proxsmtp_tp.gateway.state import Store\n"
            "with Store(Path(sys.argv[1])).lock(): print('held', flush=True); sys.stdin.read()"
        )
        self._process = subprocess.Popen(
            ["ip", "netns", "exec", namespace, sys.executable, "-c", code, str(state)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "held\n"
        self.pid = self._process.pid

    def end(self) -> None:
        """Release the lock."""
        self._process.communicate()


@pytest.fixture
def holder(host: RulesHost) -> Iterator[Holder]:
    """A process has the lock of the gateway."""
    found = Holder(host.net.gateway, host.state)
    yield found
    found.end()


def test_who_has_the_lock_for_too_long_is_named(host: RulesHost, holder: Holder) -> None:
    def wait() -> None:
        with Store(host.state).lock(seconds=0.3):
            pass

    with pytest.raises(GatewayError, match=rf"has been running .* process {holder.pid} \(.*python.*\)"):
        inside(host.net.gateway, wait)


@pytest.mark.parametrize(("command", "done"), [("install-rules", "installed"), ("remove-rules", "removed")])
def test_the_lock_is_waited_for(host: RulesHost, command: str, done: str) -> None:
    if command == "remove-rules":
        assert end(start(host.net.gateway, host.state, "install-rules", *rules_of("one")))[0] == 0
    holder = Holder(host.net.gateway, host.state)
    waiting = start(host.net.gateway, host.state, command, *rules_of("one"))
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.wait(3)
    holder.end()
    assert end(waiting)[:2] == (0, f"rules of instance one: {done}\n")


def test_another_network_namespace_is_not_waited_for(host: RulesHost, holder: Holder) -> None:
    assert holder.pid
    begun = time.monotonic()
    arguments = ["--interface=eth0", "--instance=one"]
    assert end(start(host.net.server, host.state, "install-rules", *arguments))[0] == 0
    assert time.monotonic() - begun < 50
    assert end(start(host.net.server, host.state, "remove-rules", *arguments))[0] == 0


def test_a_trial_whose_time_has_passed_before_its_turn_changes_nothing(host: RulesHost, holder: Holder) -> None:
    before = host.snapshot()
    waiting = start(host.net.gateway, host.state, "install-rules", "--confirm=1", *rules_of("one"))
    assert within(60, lambda: bool(watchdogs(host.state)))
    (deadline,) = watchdogs(host.state).values()
    assert within(60, lambda: time.clock_gettime(time.CLOCK_BOOTTIME) > deadline)
    holder.end()
    status, _, complaint = end(waiting)
    assert (status, "time to confirm had passed" in complaint) == (1, True)
    assert host.snapshot() == before


def test_what_does_not_work_now_is_tried_again(host: RulesHost) -> None:
    gateway = host.net.gateway
    arguments = ["--interface=late0", "--instance=one"]
    assert end(start(gateway, host.state, "install-rules", *arguments))[0] == 1
    waiting = start(gateway, host.state, "install-rules", "--retry=60", *arguments)
    assert waiting.stderr is not None
    told = ""
    while "trying again" not in told:
        line = waiting.stderr.readline()
        assert line, told
        told += line
    run(gateway, "ip", "link", "add", "late0", "type", "veth", "peer", "name", "late1")
    status, said, complaint = end(waiting)
    assert (status, said) == (0, "rules of instance one: installed\n")
    assert (told + complaint).count("interface late0 does not exist") == 1
    # An error that does not go away by waiting is reported at once.
    assert end(start(gateway, host.state, "install-rules", "--retry=600", "--port=0"), 20)[0] == 2


def test_the_state_of_namespaces_that_are_gone_is_deleted(host: RulesHost) -> None:
    gone = f"{host.net.gateway}x"
    subprocess.run(["ip", "netns", "add", gone], check=True)
    run(gone, "ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth1")
    try:
        for namespace in (gone, host.net.server):
            assert end(start(namespace, host.state, "install-rules", "--interface=eth0", "--instance=one"))[0] == 0
    finally:
        subprocess.run(["ip", "netns", "del", gone], check=True)
    assert len(list(host.state.glob("one@*.json"))) == 2
    host.install()
    # The server's namespace has no process, but a name: it stays.
    assert len(list(host.state.glob("one@*.json"))) == 1
    assert len(list(host.state.glob("lock@*"))) == 2
    assert end(start(host.net.server, host.state, "remove-rules", "--instance=one"))[1].endswith("removed\n")


def fill(directory: Path, how: str) -> None:
    """Make it impossible to write there."""
    if how == "read-only":
        subprocess.run(["mount", "-o", "remount,ro", str(directory)], check=True)
        return
    if how == "no inodes":
        for number in range(10000):
            try:
                (directory / f"{number}").touch()
            except OSError:
                return
    with (directory / "filling").open("wb", buffering=0) as file:
        while True:
            try:
                file.write(bytes(4096))
            except OSError:
                return


@pytest.fixture
def run_directory(host: RulesHost, tmp_path: Path) -> Iterator[Path]:
    """A small file system with the states, as /run is one."""
    where = tmp_path / "run"
    where.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,nr_inodes=40", "tmpfs", str(where)], check=True)
    host.state = where / "state"
    yield where
    subprocess.run(["umount", "-l", str(where)], check=True)


@pytest.mark.parametrize("how", ["no space", "no inodes", "read-only"])
@pytest.mark.parametrize("state", ["kept", "lost"])
@pytest.mark.parametrize("method", ["nftables", "iptables"])
def test_removal_needs_no_space(
    host: RulesHost, run_directory: Path, monkeypatch: pytest.MonkeyPatch, how: str, state: str, method: str
) -> None:
    monkeypatch.setenv("XTABLES_LOCKFILE", str(run_directory / "xtables.lock"))
    before = host.snapshot()
    arguments = rules_of("one", method=method, mode="tproxy")
    assert end(start(host.net.gateway, host.state, "install-rules", *arguments))[0] == 0
    if state == "lost":
        for path in [*host.state.iterdir(), host.state, run_directory / "xtables.lock"]:
            path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)
    fill(run_directory, how)
    status, said, complaint = end(start(host.net.gateway, host.state, "remove-rules", "--instance=one"))
    assert (status, said) == (0, "rules of instance one: removed\n"), complaint
    assert ("delete it when that is possible" in complaint) == (how == "read-only" and state == "kept")
    assert host.snapshot() == before


@pytest.mark.parametrize("how", ["no space", "no inodes", "read-only"])
@pytest.mark.parametrize("earlier", [False, True], ids=["onto nothing", "onto other rules"])
def test_without_space_install_changes_nothing_and_says_why(
    host: RulesHost, run_directory: Path, how: str, *, earlier: bool
) -> None:
    arguments: list[Any] = rules_of("one", mode="tproxy")
    if earlier:
        assert end(start(host.net.gateway, host.state, "install-rules", *arguments))[0] == 0
    before = host.snapshot()
    fill(run_directory, how)
    status, _, complaint = end(
        start(host.net.gateway, host.state, "install-rules", *arguments, "--source=192.0.2.0/24")
    )
    assert status == 1
    assert "cannot be written" in complaint
    assert "free space" in complaint
    assert host.snapshot() == before
