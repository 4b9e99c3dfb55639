"""Faults that keep mail from passing: each one is named by one command, with exit status 1, and its fix works.

The faults are staged on one gateway with a real daemon, one after the other; the command is `doctor`, and its exit
status is looked at each time. A log daemon that is gone is in tests/deploy/test_service.py. Each fault is named within
10 seconds: of a machine that is not busy, see `limit`. That no wait of doctor is longer, however busy the machine is,
shows tests/unit/gateway/test_doctor_limits.py.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import time
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from proxsmtp_tp.cli.doctor_daemon import status_of
from proxsmtp_tp.gateway.doctor import load
from proxsmtp_tp.gateway.doctor.mail_peers import Recorder
from tests.gateway import commands
from tests.gateway.daemon_host import DaemonHost
from tests.gateway.network import CLIENT, LAN, SERVER, family, inside, run
from tests.typed_fixes import types

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PASS = "#!/bin/sh\ncat\n"
LIMIT = 10
NAMED_SECONDS = 10.0
"""What docs promise: within this time doctor names a fault."""
HEALTHY_SECONDS = 1.5
"""A look at a gateway where nothing is wrong, on a machine with two cores and nothing else to do."""
_healthy = [HEALTHY_SECONDS]


@pytest.fixture(scope="module")
def gateway() -> Iterator[DaemonHost]:
    """Nothing is wrong with it."""
    host = DaemonHost(
        RuleMode="redirect", TransparentProxy="client", MaxConnections=str(LIMIT), Workers="2", FilterProcesses="2",
        FilterTimeout="20", ConnectFailure="reply",
    )  # fmt: skip
    run(host.net.client, "ip", "addr", "add", "192.0.2.11/24", "dev", "eth0")
    yield host
    host.close()


@pytest.fixture(scope="module")
def server(gateway: DaemonHost) -> None:
    """A mail server."""
    recorder = Recorder()
    inside(gateway.net.server, lambda: recorder.listen(SERVER[4], 25))


def typed(host: DaemonHost) -> tuple[int, list[dict[str, Any]]]:
    """Type `doctor`: exit status, and what it found."""
    command = commands.start(host.gateway, host.state, "doctor", "--json", "-f", str(host.instance.config))
    status, said, complained = commands.end(command)
    assert not complained, complained
    return status, json.loads(said)["findings"]


def limit() -> float:
    """NAMED_SECONDS, and more on a busy machine: as many times more as the slowest look at a healthy gateway took."""
    return NAMED_SECONDS * max(_healthy) / HEALTHY_SECONDS


def named(host: DaemonHost, step: str, text: str) -> str:
    """doctor names the fault in time, and ends with exit status 1; its fix."""
    began = time.monotonic()
    status, found = host.doctor()
    took = time.monotonic() - began
    print(f"{step}: {text}: {took:.1f} s of {limit():.1f} s")
    assert took < limit(), (step, text, took)
    wrong = [item for item in found if item["state"] == "wrong"]
    fixes = [str(item["fix"]) for item in wrong if item["step"].startswith(step) and text in item["text"]]
    assert fixes, (step, text, [item for item in found if not item["ok"]])
    assert status == 1
    return fixes[0]


def is_well(host: DaemonHost) -> bool:
    """Nothing is wrong any more."""
    began = time.monotonic()
    status, found = host.doctor()
    _healthy.append(time.monotonic() - began)
    assert status == 0, [item for item in found if not item["ok"]]
    return True


def dial(host: DaemonHost, source: str, server: str = SERVER[4]) -> socket.socket:
    """A client's connection to the server, which the rules bring to the daemon."""
    sock = inside(host.net.client, lambda: socket.socket(family(source)))
    sock.settimeout(30)
    sock.bind((source, 0))
    sock.connect((server, 25))
    return sock


def send(host: DaemonHost, source: str = CLIENT[4]) -> socket.socket:
    """Send a mail up to its end, and do not wait for the reply."""
    sock = dial(host, source)
    lines = sock.makefile("rb")
    for command in (b"", b"EHLO c", b"MAIL FROM:<a@example.com>", b"RCPT TO:<b@example.net>", b"DATA"):
        if command:
            sock.sendall(command + b"\r\n")
        while lines.readline()[3:4] == b"-":
            pass
    sock.sendall(b"Subject: x\r\n\r\nx\r\n.\r\n")
    return sock


@contextmanager
def script(host: DaemonHost, text: str) -> Iterator[None]:
    """The filter is this script."""
    host.filter.write_text(text)
    try:
        yield
    finally:
        host.filter.write_text(PASS)


@contextmanager
def configured(host: DaemonHost, line: str) -> Iterator[None]:
    """The configuration file has another line."""
    config = host.instance.config
    healthy = config.read_text()
    kept = [old for old in healthy.splitlines() if not old.startswith(line.partition(":")[0] + ":")]
    config.write_text("\n".join([*kept, line]) + "\n")
    try:
        yield
    finally:
        config.write_text(healthy)


def workers(host: DaemonHost) -> list[int]:
    """Process ids."""
    assert host.instance._daemon is not None
    pid = host.instance._daemon.pid
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def wait(condition: Callable[[], object]) -> None:
    """Until it holds."""
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_nothing_is_wrong(gateway: DaemonHost) -> None:
    assert is_well(gateway)
    status, found = typed(gateway)
    assert status == 0, [item for item in found if not item["ok"]]


def test_a_server_is_down(gateway: DaemonHost) -> None:
    with closing(dial(gateway, CLIENT[4], "198.51.100.26")) as sock:
        assert sock.recv(512).startswith(b"421 4.4.1 ")
    named(gateway, "servers", "198.51.100.26:25 does not answer: ")
    run(gateway.net.server, "ip", "addr", "add", "198.51.100.26/24", "dev", "eth0")
    recorder = Recorder()
    inside(gateway.net.server, lambda: recorder.listen("198.51.100.26", 25))
    assert is_well(gateway)


def test_a_slow_filter(gateway: DaemonHost, server: None) -> None:
    """Without a probe: the messages that wait tell."""
    with script(gateway, "#!/bin/sh\nsleep 15\ncat\n"), ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(closing(send(gateway)))
        wait(lambda: "messages wait, one for" in str(gateway.examine()))
        named(gateway, "filter processes", "of 2 (FilterProcesses): 2 messages wait, one for")
    wait(lambda: gateway.examine() == [])


CRASHES = {
    "its interpreter is missing": ("#!/nonexistent\n", "the command cannot be run"),
    "carriage returns": ("#!/bin/sh\r\ncat\r\n", "the command cannot be run"),
    "a traceback": ("#!/usr/bin/env python3\nraise ValueError('no key')\n", "ValueError: no key"),
    "killed": ("#!/bin/sh\nkill -KILL $$\n", "killed by: SIGKILL"),
    "no output": ("#!/bin/sh\ncat >/dev/null\n", "without a message"),
    "a shell error": ("#!/bin/sh\ncat; }\n", "Syntax error"),
}


@pytest.mark.parametrize("name", CRASHES)
def test_a_filter_crashes(gateway: DaemonHost, server: None, name: str) -> None:
    """Named by the messages that met it; a message that passes ends that. With --probe: test_doctor_probe.py."""
    text, reason = CRASHES[name]
    with script(gateway, text), closing(send(gateway)) as sock:
        assert sock.recv(512)[:1] in {b"4", b"5"}
        named(gateway, "verdicts", reason)
    with closing(send(gateway)) as sock:
        assert sock.recv(512).startswith(b"250 ")
    assert is_well(gateway)


STORED = {
    "the disk is full": (
        "mount -t tmpfs -o size=1m,uid=65534,mode=700 none {d}; head -c 1048576 /dev/zero >{d}/x",
        "No space left on device: messages get 452",
    ),
    "the disk is read-only": (
        "mount -t tmpfs -o ro,uid=65534,mode=700 none {d}",
        "is on a read-only disk: messages get 451",
    ),
    "the mode is wrong": ("chown 0:0 {d}", "it is not writable for 65534"),
    "it is missing": ("rmdir {d}", "No such file or directory"),
}


@pytest.mark.parametrize("name", STORED)
@types(by="name", each={"the disk is read-only": "disk is read-only", "it is missing": "directory"})
def test_messages_cannot_be_stored(gateway: DaemonHost, name: str) -> None:
    command, text = STORED[name]
    # In the namespace of this process, which the daemon shares.
    subprocess.run(["sh", "-c", command.format(d=gateway.temp)], check=True)
    try:
        fix = named(gateway, "temp directory", text)
        if fix:
            gateway.type(fix)
            assert not [item for item in gateway.look() if item.step == "temp directory" and text in item.text]
    finally:
        subprocess.run(["umount", str(gateway.temp)], check=False, capture_output=True)
    assert is_well(gateway)


RULES = {
    "half gone": ("nft flush chain inet proxsmtp_setup prerouting", "chain prerouting: missing"),
    "flushed": ("nft flush ruleset", "they are not installed"),
    "IPv6 half configured": ("ip -6 addr flush dev lan0 scope global", "only a link-local address"),
}


@pytest.mark.parametrize("name", RULES)
@types(by="name", each={"half gone": "rules differ", "flushed": "rules are absent"})
def test_rules(gateway: DaemonHost, name: str) -> None:
    command, text = RULES[name]
    gateway.run(command)
    gateway.type(named(gateway, "IPv6" if "IPv6" in name else "rules", text))
    if "IPv6" in name:
        gateway.run("ip -6 addr flush dev lan0 scope global; ip -6 addr add 2001:db8:1::1/64 dev lan0 nodad")
    assert is_well(gateway)


def test_one_client_floods_and_all_places_are_taken(gateway: DaemonHost, server: None) -> None:
    with ExitStack() as stack:
        while not stack.enter_context(closing(dial(gateway, CLIENT[4]))).recv(512).startswith(b"421 "):
            pass
        named(gateway, "clients", f"{CLIENT[4]} alone has ")
        while not stack.enter_context(closing(dial(gateway, "192.0.2.11"))).recv(512).startswith(b"421 "):
            pass
        named(gateway, "connections", f"{LIMIT} of {LIMIT} (MaxConnections): more clients are refused")
    wait(lambda: gateway.examine() == [])


@types("rules of another instance")
def test_a_second_instance_is_in_the_way(gateway: DaemonHost) -> None:
    """install-rules refuses it, and names the other; if there is one nevertheless, doctor names it."""
    arguments = ("--instance=second", "--interface=lan0", "--source=192.0.2.0/24", "--listen-port=10026")
    status, _, complaint = commands.end(commands.start(gateway.gateway, gateway.state, "install-rules", *arguments))
    assert status == 1
    assert "instance setup intercepts port 25 of lan0 already" in complaint
    aside = gateway.state.rename(gateway.state.with_name("aside"))
    assert commands.end(commands.start(gateway.gateway, gateway.state, "install-rules", *arguments))[0] == 0
    for path in aside.glob("setup@*.json"):
        path.rename(gateway.state / path.name)
    gateway.type(named(gateway, "other instances", "instance second intercepts port 25 of lan0 already"))
    assert is_well(gateway)


@types("worker is stopped", "worker hangs")
def test_a_worker_hangs(gateway: DaemonHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped by a signal; or silent for another reason: here a stopped one whose state doctor does not see."""
    before = workers(gateway)
    os.kill(before[0], signal.SIGSTOP)
    gateway.type(named(gateway, "workers", "is stopped by a signal"))
    assert is_well(gateway)
    os.kill(before[0], signal.SIGSTOP)
    monkeypatch.setattr(load, "_state", lambda _: "S")
    monkeypatch.setattr(load, "SILENT", 6)  # one pulse is missing
    wait(lambda: max(each["silent"] for each in (status_of("setup") or {})["workers"]) >= load.SILENT)
    gateway.type(named(gateway, "workers", f"process {before[0]} hangs"))
    wait(lambda: len(workers(gateway)) == len(before) and before[0] not in workers(gateway))
    assert is_well(gateway)


@types("daemon does not run")
def test_the_daemon_is_dead(gateway: DaemonHost) -> None:
    gateway.instance.stop()
    fix = named(gateway, "listener", "no process listens on port 10025")
    with configured(gateway, "Listen: 192.0.2.99:10025"):
        named(gateway, "listener", "the daemon could not: Listen: 192.0.2.99:10025: Cannot assign requested address")
    gateway.type(fix)
    assert is_well(gateway)


@types("file has changed", "restart is due", "reload, by hand")
def test_the_configuration_is_broken_since_the_start(gateway: DaemonHost) -> None:
    with configured(gateway, "FilterTimeout: soon"):
        status, found = typed(gateway)
        assert status == 1
        assert [item["step"] for item in found if item["state"] == "wrong"] == ["configuration"]
        assert "FilterTimeout" in found[0]["text"]
    with configured(gateway, "MaxConnections: 12"):
        gateway.type(named(gateway, "configuration", "has changed since the daemon read it"))
        assert is_well(gateway)
    gateway.reload()
    with configured(gateway, "ClientTableSize: 5000"):
        gateway.reload()
        gateway.type(named(gateway, "configuration", "ClientTableSize changed in the file, which needs a restart"))
        assert is_well(gateway)
    gateway.restart()
    assert is_well(gateway)


@types("daemon lacks CAP_NET_RAW")
def test_full_without_the_capability(gateway: DaemonHost) -> None:
    with configured(gateway, "TransparentProxy: full"):
        gateway.type(named(gateway, "capability", "lacks CAP_NET_RAW"))
        assert not [item for item in gateway.look() if item.step == "capability" and item.wrong]
    gateway.restart()
    assert is_well(gateway)


def without_rules(**directives: str) -> DaemonHost:
    """A daemon that clients connect to. It has a name of its own, since all share the folder of status sockets."""
    return DaemonHost(TransparentProxy="off", RuleInterface="", Instance="direct", **directives)


def test_the_name_servers_are_silent(tmp_path: Path) -> None:
    """The resolver itself waits longer than a step may take."""
    host = without_rules(OutAddress="mx.example.com:25", Listen="127.0.0.1:10025")
    (tmp_path / "resolv.conf").write_text("nameserver 198.51.100.99\nnameserver 198.51.100.98\n")
    subprocess.run(["mount", "--bind", str(tmp_path / "resolv.conf"), "/etc/resolv.conf"], check=True)
    try:
        status, found = typed(host)
        assert status == 1
        assert [item["step"] for item in found if item["state"] == "wrong"] == ["DNS"]
        assert "OutAddress mx.example.com cannot be resolved: no answer within 4 s" in str(found)
        assert [item["step"] for item in found if item["state"] == "unseen"] == ["daemon"]
    finally:
        subprocess.run(["umount", "/etc/resolv.conf"], check=True)
        host.close()


def test_loopback_mode() -> None:
    """The server is the client's own host. No step asks for rules."""
    host = without_rules(OutAddress="2525", Listen="10025", Clients="192.0.2.0/24")
    try:
        assert is_well(host)
        found = host.look()
        assert not [item for item in found if re.match("rules|interface|forward|firewall|delivery", item.step)], found
        assert "Clients names who may connect: 192.0.2.0/24" in str(found)
        sock = inside(host.net.client, lambda: socket.create_connection((LAN[4], 10025), 30))
        with closing(sock):
            assert sock.recv(512).startswith(b"421 ")
        named(host, "servers", f"{CLIENT[4]}:2525 does not answer: Connection refused")
        recorder = Recorder()
        inside(host.net.client, lambda: recorder.listen(CLIENT[4], 2525))
        assert is_well(host)
        host.instance.stop()
        named(host, "listener", "no process listens on port 10025")
    finally:
        host.close()


@types("no listener at a path", "listens on another port")
def test_unix_sockets_in_listen(tmp_path: Path) -> None:
    """As the only listeners, and beside a port."""
    tmp_path.chmod(0o755)
    one, two = tmp_path / "one.sock", tmp_path / "two.sock"
    host = without_rules(OutAddress=f"{SERVER[4]}:25", Listen=str(one), User="")
    try:
        recorder = Recorder()
        inside(host.net.server, lambda: recorder.listen(SERVER[4], 25))
        status, found = typed(host)
        assert status == 0, found
        texts = {item["step"]: item["text"] for item in found}
        assert (texts["daemon"], texts[f"access, {one}"]) == ("it answers", "only this host reaches it")
        assert host.instance._daemon is not None
        pids = [host.instance._daemon.pid, *workers(host)]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        assert "kill -KILL " in named(host, "daemon", "it hangs")
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        with configured(host, f"Listen: 127.0.0.1:10025, {two}"):
            host.type(named(host, "listener", "no process listens on port 10025, and the daemon runs"))
            assert {item.step: item.ok for item in host.look()}[f"listener, {two}"]
        with configured(host, f"Listen: 127.0.0.1:10025, {one}"):
            host.type(named(host, f"listener, {one}", "nobody listens"))
            assert is_well(host)
            host.instance.stop()
            named(host, "listener", "no process listens on port 10025")
        named(host, "listener", f"no process listens at {one}")
    finally:
        host.close()


@pytest.mark.parametrize("name", ["DNS", "server", "relay"])
def test_without_rules(name: str) -> None:
    """OutAddress: the name does not resolve, nobody answers, everybody may relay. No step asks for rules."""
    server = {"DNS": "mx.doctor.invalid:25", "server": "198.51.100.99:25", "relay": f"{SERVER[4]}:25"}[name]
    host = without_rules(OutAddress=server, Listen="10025")
    try:
        recorder = Recorder()
        inside(host.net.server, lambda: recorder.listen(SERVER[4], 25))
        expected = {
            "DNS": ("DNS", "OutAddress mx.doctor.invalid cannot be resolved"),
            "server": ("server", "OutAddress 198.51.100.99:25 does not answer"),
            "relay": ("access", "it is an open relay"),
        }
        named(host, *expected[name])
        steps = {item.step for item in host.look()}
        assert not [step for step in steps if re.match("rules|interface|forward|firewall|delivery", step)], steps
        if name == "relay":
            with configured(host, "Clients: 192.0.2.0/24"):
                host.reload()
                assert is_well(host)
    finally:
        host.close()
