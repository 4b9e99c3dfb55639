"""The daemon, its filter or its directory is broken on purpose: `doctor` names it, and its command fixes it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys

import pytest

from proxsmtp_tp.gateway.doctor.listeners import listening
from proxsmtp_tp.gateway.nft_text import ALIVE_SET
from proxsmtp_tp.lab.gateway import program
from tests.gateway.daemon_host import DaemonHost, diagnosed, soon
from tests.gateway.network import inside
from tests.typed_fixes import types


@types("directory")
def test_the_temp_directory(redirect: DaemonHost) -> None:
    temp = redirect.temp
    temp.rmdir()
    redirect.type(diagnosed(redirect, "temp directory", "No such file"))
    assert redirect.examine() == []
    assert (temp.stat().st_mode & 0o7777, temp.stat().st_uid) == (0o700, 65534)
    temp.chmod(0o777)
    redirect.type(diagnosed(redirect, "temp directory", "open to everybody"))
    os.chown(temp, 0, 0)
    redirect.type(diagnosed(redirect, "temp directory", "not writable for 65534"))
    assert redirect.examine() == []


@types("filter's mode")
def test_the_filter(redirect: DaemonHost) -> None:
    redirect.filter.chmod(0o600)
    redirect.type(diagnosed(redirect, "filter", "cannot be run by 65534"))
    assert redirect.examine() == []
    redirect.filter.rename(redirect.folder / "away")
    diagnosed(redirect, "filter", "No such file")
    (redirect.folder / "away").rename(redirect.filter)
    assert redirect.examine() == []


BROKEN_FILTERS = {
    "its interpreter is missing": (
        "#!/nonexistent/python3\n",
        0o755,
        "its interpreter /nonexistent/python3 cannot be run",
    ),
    "not found by env": ("#!/usr/bin/env python0.9\n", 0o755, "its interpreter python0.9 is not installed"),
    "carriage returns": ("#!/bin/sh\r\ncat\r\n", 0o755, "has carriage returns at the ends of its lines"),
    "not readable": ("#!/bin/sh\ncat\n", 0o711, "is a script, and cannot be read by 65534"),
    "not to be run": ("#!/bin/sh\ncat\n", 0o644, "cannot be run by 65534"),
}


@pytest.mark.parametrize("name", BROKEN_FILTERS)
@types(by="name", each={"carriage returns": "carriage returns", "not readable": "filter's mode"})
def test_a_filter_that_its_user_cannot_run(redirect: DaemonHost, name: str) -> None:
    script, mode, text = BROKEN_FILTERS[name]
    redirect.filter.write_text(script)
    redirect.filter.chmod(mode)
    try:
        fix = diagnosed(redirect, "filter", text)
        if fix:
            redirect.type(fix)
            assert redirect.examine() == []
        assert bool(fix) != name.startswith(("its", "not found"))
    finally:
        redirect.filter.write_text("#!/bin/sh\ncat\n")
        redirect.filter.chmod(0o755)


COMMANDS = {
    "python3 /missing.py": "/missing.py does not exist",
    "A=1 exec python3 -u missing.py": "missing.py does not exist",
    "no-such-program --fast": "no-such-program is not installed (PATH is",
    "/etc/passwd": "/etc/passwd cannot be run",
    "/etc": "/etc is no file",
    "python3 -c 'import sys' /missing.py": None,
    "cat | sed s/a/b/": None,
    "if true; then cat; fi": None,
    "exec cat": None,
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_filter_command(redirect: DaemonHost, command: str) -> None:
    text, healthy = COMMANDS[command], redirect.instance.config.read_text()
    redirect.instance.config.write_text(re.sub("FilterCommand: .*", f"FilterCommand: {command}", healthy))
    try:
        wrong = [finding.text for finding in redirect.examine() if finding.step == "filter"]
        assert len(wrong) == (text is not None)
        assert all(str(text) in line for line in wrong), wrong
    finally:
        redirect.instance.config.write_text(healthy)


# In the daemon's own mount namespace, as a unit's restrictions make it: the host is as before.
HIDDEN = {
    "read-only": (
        "mount --bind {d} {d} && mount -o remount,ro,bind {d}",
        "temp directory",
        "is read-only for the daemon",
    ),
    "no such directory": ("mount -t tmpfs none {folder}", "temp directory", "No such file"),
    "no filter": ("mount -t tmpfs none {folder}", "filter", "No such file"),
    "no programs": (
        "mount --bind {folder} {folder} && mount -o remount,noexec,bind {folder}",
        "filter",
        "mounted noexec",
    ),
    "full": (
        "mount -t tmpfs -o size=64k,uid=65534 none {d} && head -c 65536 /dev/zero >{d}/x",
        "temp directory",
        "No space",
    ),
}


@pytest.mark.parametrize("name", HIDDEN)
def test_what_only_the_daemon_sees(redirect: DaemonHost, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    command, step, text = HIDDEN[name]
    with monkeypatch.context() as patch:
        usual = redirect.instance.host.command
        own = ["unshare", "--mount", "--propagation=private"]
        patch.setattr(redirect.instance.host, "command", lambda *words: [*usual(), *own, *map(str, words)])
        redirect.restart()
    pid = min(_daemon_pids(redirect))
    enter = ["nsenter", "--target", str(pid), "--mount", "sh", "-c"]
    subprocess.run([*enter, command.format(d=redirect.temp, folder=redirect.folder)], check=True)
    try:
        diagnosed(redirect, step, text)
    finally:
        redirect.restart()
    assert redirect.examine() == []


def test_the_daemon_makes_its_temp_directory(redirect: DaemonHost) -> None:
    redirect.temp.rmdir()
    parent = redirect.temp.parent
    parent.chmod(0o777)
    redirect.restart()
    try:
        assert (redirect.temp.stat().st_mode & 0o7777, redirect.temp.stat().st_uid) == (0o700, 65534)
        assert redirect.examine() == []
    finally:
        parent.chmod(0o755)


def _limit(pid: int, limit: str) -> None:
    """As the daemon's own user: this needs no privilege that root may lack in a container."""
    user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    subprocess.run([*user, "prlimit", "--pid", str(pid), limit], check=True)


@types("few descriptors", "restart, by hand")
def test_descriptors(redirect: DaemonHost) -> None:
    for limit in ("100:", "100:100"):
        for pid in _daemon_pids(redirect):
            _limit(pid, f"--nofile={limit}")
        redirect.type(diagnosed(redirect, "descriptors", "MaxConnections needs 192"))
        assert redirect.examine() == []


@types("connection table is full")
def test_a_full_connection_table(redirect: DaemonHost) -> None:
    """The kernel's table cannot be made larger in a namespace: files lie over its settings."""
    redirect.run("sysctl -n net.netfilter.nf_conntrack_count")  # it is there
    enter = ["nsenter", f"--net=/run/netns/{redirect.gateway}"]
    settings = {"nf_conntrack_count": "95", "nf_conntrack_max": "100"}
    where = [f"/proc/sys/net/netfilter/{name}" for name in settings]
    text = "95 of 100 connections: new ones are dropped"
    assert not [f for f in redirect.look() if f.step == "connection tracking" and f.wrong]
    try:
        for place, (name, value) in zip(where, settings.items(), strict=True):
            (redirect.folder / name).write_text(value)
            subprocess.run([*enter, "mount", "--bind", str(redirect.folder / name), place], check=True)
        redirect.type(diagnosed(redirect, "connection tracking", text))
        assert redirect.examine() == []
        assert (redirect.folder / "nf_conntrack_max").read_text().strip() == "200"
    finally:
        for place in where:
            subprocess.run([*enter, "umount", place], check=True)


@types("bypass")
def test_a_bypass_is_ended(redirect: DaemonHost) -> None:
    redirect.run(f"{program()} bypass -f {redirect.instance.config} --for 30m --reason 'the filter is broken'")
    redirect.type(diagnosed(redirect, "bypass", "mail passes unjudged for another"))
    assert redirect.examine() == []


@types("no worker")
def test_no_worker_can_be_started(redirect: DaemonHost) -> None:
    assert redirect.instance._daemon is not None
    master = redirect.instance._daemon.pid
    _limit(master, "--nproc=1:1")
    for pid in _daemon_pids(redirect):
        if pid != master:
            os.kill(pid, signal.SIGKILL)
    assert redirect.instance.wait_log("cannot start a worker")
    redirect.type(diagnosed(redirect, "workers", "none runs"))
    assert redirect.examine() == []


@types("no heartbeat")
def test_no_heartbeat(redirect: DaemonHost) -> None:
    """Mail passes unfiltered while the daemon is down."""
    healthy = dict(redirect.instance.directives)
    redirect.instance.directives = healthy | {"RuleFail": "open"}
    try:
        redirect.restart()
        redirect.install()
        assert redirect.examine() == []
        redirect.instance.stop()
        redirect.run(f"nft flush set inet proxsmtp_setup {ALIVE_SET}")
        redirect.type(diagnosed(redirect, "heartbeat", "mail passes unfiltered now"))
        assert soon(lambda: redirect.examine() == [])
    finally:
        redirect.instance.directives = healthy
        redirect.restart()
        redirect.install()
    assert redirect.examine() == []


def _daemon_pids(host: DaemonHost) -> list[int]:
    """Each once, also if it has several listeners."""
    return sorted({pid for item in inside(host.gateway, lambda: listening(10025)) for pid in item.pids})


@types("start, by hand", "daemon does not run")
def test_a_daemon_that_is_down(redirect: DaemonHost) -> None:
    redirect.instance.stop()
    redirect.type(diagnosed(redirect, "listener", "no process listens on port 10025"))
    assert redirect.examine() == []


@types("daemon hangs, by hand")
def test_a_daemon_that_hangs(redirect: DaemonHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxsmtp_tp.gateway.doctor.listeners.ANSWER_SECONDS", 1.0)
    pids = _daemon_pids(redirect)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    redirect.type(diagnosed(redirect, "daemon", "it hangs"))
    monkeypatch.undo()
    assert redirect.examine() == []


@types("listens elsewhere")
def test_a_daemon_that_listens_elsewhere(redirect: DaemonHost) -> None:
    redirect.instance.stop()
    healthy = dict(redirect.instance.directives)
    redirect.instance.directives = healthy | {"Listen": "127.0.0.1:10025"}
    redirect.instance.start()
    text = "it listens only on 127.0.0.1, port 10025"
    assert diagnosed(redirect, "listener, IPv4", text) == ""  # as the file says
    redirect.instance.config.write_text("".join(f"{name}: {value}\n" for name, value in healthy.items()))
    redirect.type(diagnosed(redirect, "listener, IPv4", text))
    assert redirect.examine() == []
    redirect.instance.stop()
    # On the addresses to which REDIRECT sends, it need not listen on all.
    redirect.instance.directives = healthy | {"Listen": "192.0.2.1:10025, [2001:db8:1::1]:10025"}
    redirect.instance.start()
    assert redirect.examine() == []
    redirect.instance.stop()
    redirect.instance.directives = healthy
    redirect.instance.start()
    assert redirect.examine() == []


@types("listener is not transparent")
def test_a_listener_that_is_not_transparent(tproxy: DaemonHost) -> None:
    tproxy.instance.stop()
    healthy = dict(tproxy.instance.directives)
    tproxy.instance.directives = healthy | {"RuleMode": "redirect", "TransparentProxy": "client"}
    tproxy.instance.start()
    tproxy.instance.config.write_text("".join(f"{name}: {value}\n" for name, value in healthy.items()))
    tproxy.instance.directives = healthy
    tproxy.type(diagnosed(tproxy, "listener, IPv4", "not transparent"))
    assert tproxy.examine() == []


NO_SMTP = """
import os, socket
for family, anywhere in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
    s = socket.socket(family)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        s.setsockopt(socket.IPPROTO_IPV6, 75, 1)
    else:
        s.setsockopt(socket.SOL_IP, socket.IP_TRANSPARENT, 1)
    s.bind((anywhere, 10025))
    s.listen()
    if os.fork() == 0:
        os.setgid(65534)
        os.setuid(65534)
        os.write(1, b"ready\\n")
        while True:
            c, _ = s.accept()
            c.sendall(b"hello\\r\\n")
            c.close()
os.wait()
"""


def test_another_program_without_the_capability(tproxy: DaemonHost) -> None:
    tproxy.instance.stop()
    other = subprocess.Popen(
        ["ip", "netns", "exec", tproxy.gateway, sys.executable, "-c", NO_SMTP], stdout=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    assert other.stdout is not None
    try:
        assert [other.stdout.readline(), other.stdout.readline()] == ["ready\n", "ready\n"]
        assert diagnosed(tproxy, "daemon", "does not answer in SMTP") == ""
        diagnosed(tproxy, "capability", "lacks CAP_NET_RAW")
    finally:
        os.killpg(other.pid, signal.SIGKILL)
        other.communicate()
    tproxy.instance.start()
    assert tproxy.examine() == []
