"""An instance of the lab: it counts as started when it is ready, its end is reported, its rules are removed in any
case."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.lab import gateway
from proxsmtp_tp.lab.gateway import Instance, changes
from proxsmtp_tp.lab.network import LabError, Network

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from proxsmtp_tp.lab.network import Host

READY = "import os, socket; s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); "
READY += "s.connect(os.environ['NOTIFY_SOCKET']); s.send(b'STATUS=x\\nREADY=1\\n')"


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with Network() as network:
        yield network.host(f"t{os.getpid()}gw")


def instance(host: Host, directory: Path, monkeypatch: pytest.MonkeyPatch, serve: str) -> Instance:
    """An instance whose program is a script: `serve` is its daemon, the other subcommands are written to a file."""
    script = directory / "proxsmtp-tp"
    script.write_text(f'#!/bin/sh\nif [ "$1" != serve ]; then echo "$*" >>{directory}/notes; exit 0; fi\n{serve}\n')
    script.chmod(0o755)
    monkeypatch.setattr(gateway, "program", lambda: script)
    return Instance(host, directory, {"Listen": "10025", "RuleMode": "redirect"}, "one")


def test_started_means_ready(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    serve = f'trap "exit 0" TERM; cat "$3"; python3 -c "{READY}"; while :; do sleep 0.02; done'
    subject = instance(host, tmp_path, monkeypatch, serve)
    with subject.running():
        assert subject.wait_log("RuleMode: redirect\n")
        assert subject.log == "DrainTimeOut: 5\nListen: 10025\nRuleMode: redirect\n"
        assert not subject.wait_log("never", 0, 0.05)
    told = (tmp_path / "notes").read_text().splitlines()
    assert told == [f"install-rules -f {tmp_path}/one.conf", f"remove-rules -f {tmp_path}/one.conf"]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["notes", "one.conf", "one.log", "proxsmtp-tp"]


def test_rules_go_after_trouble(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    serve = f'trap "exit 0" TERM; python3 -c "{READY}"; while :; do sleep 0.02; done'
    subject = instance(host, tmp_path, monkeypatch, serve)
    with pytest.raises(ZeroDivisionError), subject.running():
        raise ZeroDivisionError
    assert "remove-rules" in (tmp_path / "notes").read_text()


@pytest.mark.parametrize(
    ("serve", "told"),
    [
        ("echo cannot bind; exit 1", "ended with 1:\ncannot bind"),
        ("kill -9 $$", "ended with -9"),
        (f'python3 -c "{READY}"; exec sleep 600', "ended with -15"),
    ],
)
def test_a_daemon_that_ends_badly_is_reported(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, serve: str, told: str
) -> None:
    subject = instance(host, tmp_path, monkeypatch, serve)
    with pytest.raises(LabError) as caught, subject.running():
        pass
    assert told in str(caught.value)


def test_a_daemon_that_is_never_ready_is_reported(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway, "START_SECONDS", 0.3)
    subject = instance(host, tmp_path, monkeypatch, "echo still thinking; exec sleep 600")
    with pytest.raises(LabError, match="not ready after") as caught:
        subject.start()
    assert "still thinking" in str(caught.value)


def test_changes_are_counted() -> None:
    before = {"a": ["x", "y", "y"], "b": []}
    assert changes(before, before) == []
    assert changes(before, {"a": ["y", "x"], "b": ["z"]}) == ["a: - y", "b: + z"]


def test_settings_of_a_new_module_are_no_change() -> None:
    """Connection tracking is loaded by the first rule that needs it; what it brings stays for good."""
    forward, limit = "/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/netfilter/nf_conntrack_max"
    before = {"sysctl net": [f"{forward}:0"]}
    assert changes(before, {"sysctl net": [f"{forward}:0", f"{limit}:9", "/proc/sys/net/nf_conntrack_max:9"]}) == []
    assert changes({"sysctl net": [f"{limit}:9"]}, {"sysctl net": [f"{limit}:8"]}) == [
        f"sysctl net: + {limit}:8",
        f"sysctl net: - {limit}:9",
    ]
    assert changes(before, {"sysctl net": [f"{forward}:0", f"{forward}_new:1"]}) == [f"sysctl net: + {forward}_new:1"]
