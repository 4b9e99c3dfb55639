"""watch-rules: what another program removes is back at once; what an administrator removes stays away."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from proxsmtp_tp.gateway.plan import Method, Mode
from tests.gateway.commands import end, start
from tests.gateway.network import run
from tests.gateway.rules_host import METHODS, MODES, within

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from tests.gateway.rules_host import RulesHost

SECONDS = 30.0
"""For what takes a second: the machine is busy. Less than the minute after which rules are looked at in any case."""


@pytest.fixture
def watched(host: RulesHost) -> Iterator[subprocess.Popen[str]]:
    """The unit's process."""
    process = start(host.net.gateway, host.state, "watch-rules", "--instance", "test")
    yield process
    process.kill()
    process.communicate()


def seen(host: RulesHost) -> dict[str, Any]:
    """What status is told."""
    for path in host.state.glob("test@*.json.seen"):
        found: dict[str, Any] = json.loads(path.read_text())
        return found
    return {}


def other_change(host: RulesHost) -> None:
    """A change of nftables rules that are not ours: the kernel reports it, and none of legacy iptables rules."""
    run(host.net.gateway, "nft", "add", "table", "inet", "other")
    run(host.net.gateway, "nft", "delete", "table", "inet", "other")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("method", METHODS)
def test_what_is_removed_is_put_back(
    host: RulesHost, watched: subprocess.Popen[str], method: Method, mode: Mode
) -> None:
    net = host.net
    before = host.snapshot()
    assert within(SECONDS, lambda: seen(host).get("state") == "absent")
    host.install(method=method, mode=mode)
    installed = host.snapshot()
    other_change(host)
    assert within(SECONDS, lambda: seen(host).get("state") == "in place")
    run(net.gateway, "nft", "flush", "ruleset")
    if method is Method.IPTABLES:
        for table in ("nat", "mangle", "filter"):
            for command in ("iptables-legacy", "ip6tables-legacy"):
                run(net.gateway, command, "-t", table, "-F")
        other_change(host)
    assert within(SECONDS, lambda: seen(host).get("state") == "in place" and seen(host)["restored"] > 0)
    assert host.snapshot() == installed
    if mode is Mode.TPROXY:
        rules = [line for line in run(net.gateway, "ip", "rule").splitlines() if "fwmark" in line]
        restored = seen(host)["restored"]
        run(net.gateway, "ip", "rule", "del", "priority", rules[0].partition(":")[0])
        assert within(SECONDS, lambda: seen(host)["restored"] > restored)
        assert host.snapshot() == installed
    host.remove()
    other_change(host)
    assert within(SECONDS, lambda: seen(host).get("state") == "absent")
    assert host.snapshot() == before
    watched.terminate()
    status, _, said = end(watched)
    assert status == 0
    assert "another program removed or changed them, they are put back" in said
    assert seen(host) == {}


def test_rules_that_cannot_be_restored_are_reported_once(host: RulesHost, watched: subprocess.Popen[str]) -> None:
    host.install()
    assert within(SECONDS, lambda: seen(host).get("state") == "in place")
    state = next(host.state.glob("test@*.json"))
    # A state that this host cannot be brought to, such as one whose file system became read-only.
    state.with_name(f".{state.name}.new").mkdir()
    run(host.net.gateway, "nft", "flush", "ruleset")
    assert within(SECONDS, lambda: seen(host).get("state") == "absent")
    for _ in range(2):
        other_change(host)
    state.with_name(f".{state.name}.new").rmdir()
    other_change(host)
    assert within(SECONDS, lambda: seen(host)["restored"] > 0)
    assert host.check().in_place
    watched.terminate()
    _, _, said = end(watched)
    assert said.count("they cannot be put back") == 1
