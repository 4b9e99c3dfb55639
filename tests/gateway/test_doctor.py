"""Each step of interception is broken on purpose: `doctor` names it, and the command that it gives fixes it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.cli.doctor_actions import is_well
from proxsmtp_tp.gateway.doctor import firewall
from proxsmtp_tp.gateway.doctor.findings import State
from proxsmtp_tp.gateway.doctor.listeners import listening
from proxsmtp_tp.gateway.nft_text import ALIVE_SET
from proxsmtp_tp.gateway.plan import Numbers, preferred_slot
from proxsmtp_tp.lab.gateway import program
from tests.gateway import foreign_rulesets
from tests.gateway.daemon_host import WAIT_SECONDS, DaemonHost
from tests.gateway.network import LAN, WAN, inside, run
from tests.typed_fixes import types

if TYPE_CHECKING:
    from collections.abc import Iterator

OWN, OWN_TPROXY = Numbers(preferred_slot("setup")), Numbers(preferred_slot("tproxy"))
DROP_INPUT = """table inet other {
    chain input {
        type filter hook input priority 0; policy drop;
        ct state established accept
        iifname lo accept
        icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
    }
}
"""
NO_TRACKING = """table ip t {
    chain c {
        type filter hook prerouting priority raw;
        tcp dport 25 notrack
    }
}
"""


@pytest.fixture(scope="module")
def redirect() -> Iterator[DaemonHost]:
    """Mode redirect, transparent to the client."""
    host = DaemonHost(
        RuleMode="redirect", TransparentProxy="client",
        RuleSource="192.0.2.0/24, 203.0.113.0/24, 2001:db8:1::/64",
    )  # fmt: skip
    yield host
    host.close()


@pytest.fixture(scope="module")
def tproxy() -> Iterator[DaemonHost]:
    """Mode tproxy, transparent to both sides."""
    host = DaemonHost(RuleMode="tproxy", TransparentProxy="full", Instance="tproxy")
    yield host
    host.close()


def diagnosed(host: DaemonHost, step: str, text: str) -> str:
    """The fix of the finding that is expected."""
    found = host.examine()
    for finding in found:
        if step in finding.step and text in finding.text:
            return finding.fix
    raise AssertionError(f"no {step}: {text} in {found}")


def test_nothing_is_wrong(redirect: DaemonHost, tproxy: DaemonHost) -> None:
    assert redirect.examine() == []
    assert tproxy.examine() == []


BROKEN_REDIRECT = {
    "forwarding": ("sysctl -qw net.ipv4.ip_forward=0", "forwarding, IPv4", "not forwarded"),
    "IPv6 forwarding": ("sysctl -qw net.ipv6.conf.all.forwarding=0", "forwarding, IPv6", "not forwarded"),
    "reverse path": (
        "ip route replace 203.0.113.0/24 via 198.51.100.25 dev wan0; sysctl -qw net.ipv4.conf.all.rp_filter=1",
        "return path, lan0",
        "answers to 203.0.113.0/24 leave by wan0",
    ),
    "no way back": ("ip route del 203.0.113.0/24", "return path, lan0", "no route back to 203.0.113.0/24"),
    "a rule is gone": ("nft flush chain inet proxsmtp_setup prerouting", "rules", "chain prerouting: missing"),
    "the rules are gone": ("nft flush ruleset", "rules", "not installed"),
    "untracked by nft": (
        f"nft -f - <<'END'\n{NO_TRACKING}END",
        "connection tracking",
        "nft ip t c switches it off",
    ),
    "untracked by iptables": (
        "iptables-legacy -t raw -A PREROUTING -p tcp --dport 25 -j CT --notrack",
        "connection tracking",
        "iptables-legacy -t raw switches it off",
    ),
    "nft drops": (
        f"nft -f - <<'END'\n{DROP_INPUT}END",
        "firewall, lan0",
        "nft table inet other does not let intercepted IPv4 and IPv6 connections in (port 10025)",
    ),
    "iptables drops": (
        "iptables-legacy -A INPUT -i lan0 -p tcp -m multiport --dports 1000:20000 -j DROP",
        "firewall, lan0",
        "iptables-legacy does not let intercepted IPv4",
    ),
    "ip6tables-nft drops": (
        "ip6tables-nft -A INPUT -i lan0 -p tcp -j REJECT",
        "firewall, lan0",
        "ip6tables-nft does not let intercepted IPv6",
    ),
}


@pytest.mark.parametrize("name", BROKEN_REDIRECT)
@types(
    by="name",
    each={
        "forwarding": "not forwarded",
        "reverse path": "strict reverse path",
        "no way back": "no route back",
        "a rule is gone": "rules differ",
        "the rules are gone": "rules are absent",
        "untracked by nft": "untracked by nft",
        "untracked by iptables": "untracked by iptables",
        "nft drops": "nft drops",
        "iptables drops": "iptables drops",
    },
)
def test_redirect_broken_and_fixed(redirect: DaemonHost, name: str) -> None:
    command, step, text = BROKEN_REDIRECT[name]
    redirect.run(command)
    try:
        redirect.type(diagnosed(redirect, step, text))
        assert redirect.examine() == []
    finally:
        redirect.run(
            "nft delete table inet other; nft delete table ip t; iptables-legacy -F INPUT; ip6tables-nft -F INPUT;"
            " ip route replace 203.0.113.0/24 via 192.0.2.10 dev lan0; sysctl -qw net.ipv4.conf.all.rp_filter=0; true"
        )


BROKEN_TPROXY = {
    "a policy rule is gone": (
        f"ip rule del priority {OWN_TPROXY.priority + 1}",
        "policy routing",
        f"missing: ip -4 rule priority {OWN_TPROXY.priority + 1}",
    ),
    "the route is gone": (
        f"ip -6 route flush table {OWN_TPROXY.table}", "policy routing", "missing: ip -6 route local default dev lo",
    ),
    "a policy rule comes first": (
        "ip route add default dev wan0 table 77; ip rule add from 192.0.2.0/24 lookup 77 priority 50",
        "delivery, lan0, IPv4",
        "routed away by a policy rule before ours: ip -4 rule 50",
    ),
    "firewalld": (
        f"nft -f - <<'END'\n{foreign_rulesets.FIREWALLD.replace('{ 22, 25 }', '{ 22 }')}END",
        "firewall, lan0",
        "nft table inet firewalld does not let intercepted IPv4 and IPv6 connections in (port 25)",
    ),
    "ufw": (
        f"iptables-legacy-restore <<'END'\n{foreign_rulesets.UFW.replace('25,10025', '587')}END",
        "firewall, lan0",
        "iptables-legacy does not let intercepted IPv4 connections in (port 25)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN_TPROXY)
@types(
    by="name",
    each={
        "the route is gone": "policy routing differs",
        "a policy rule comes first": "policy rule comes first",
        "firewalld": "nft drops what is diverted",
        "ufw": "iptables drops what is diverted",
    },
)
def test_tproxy_broken_and_fixed(tproxy: DaemonHost, name: str) -> None:
    command, step, text = BROKEN_TPROXY[name]
    tproxy.run(command)
    try:
        tproxy.type(diagnosed(tproxy, step, text))
        assert tproxy.examine() == []
    finally:
        tproxy.run(
            "nft delete table inet firewalld; iptables-legacy -P INPUT ACCEPT; iptables-legacy -P FORWARD ACCEPT;"
            " iptables-legacy -F; iptables-legacy -X; ip rule del priority 30000; ip route flush table 77; true"
        )


@types("interface is down")
def test_an_interface_that_is_down(redirect: DaemonHost) -> None:
    redirect.run("ip link set lan0 down")
    redirect.type(diagnosed(redirect, "interface lan0", "it is down"))
    redirect.run("ip route replace 203.0.113.0/24 via 192.0.2.10 dev lan0")
    assert _soon(lambda: redirect.examine() == [])


@types("link-local address only")
def test_ipv6_with_a_link_local_address_only(redirect: DaemonHost) -> None:
    redirect.run("ip -6 addr flush dev lan0 scope global")
    redirect.type(diagnosed(redirect, "IPv6, lan0", "only a link-local address"))
    found = redirect.examine()
    assert not [finding for finding in found if finding.step.startswith("IPv6")]
    redirect.run("ip -6 addr flush dev lan0 scope global; ip -6 addr add 2001:db8:1::1/64 dev lan0 nodad")
    assert redirect.examine() == []


def test_ipv6_that_leads_nowhere(redirect: DaemonHost) -> None:
    """Every interface has a link-local address, also where nobody uses IPv6."""
    redirect.run("ip -6 addr flush dev lan0 scope global; ip -6 addr flush dev wan0 scope global")
    assert not [finding for finding in redirect.examine() if finding.step.startswith("IPv6")]
    redirect.run(f"ip -6 addr add {LAN[6]}/64 dev lan0 nodad; ip -6 addr add {WAN[6]}/64 dev wan0 nodad")
    assert redirect.examine() == []


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
        assert _soon(lambda: redirect.examine() == [])
    finally:
        redirect.instance.directives = healthy
        redirect.restart()
        redirect.install()
    assert redirect.examine() == []


def _daemon_pids(host: DaemonHost) -> list[int]:
    """Each once, also if it has several listeners."""
    return sorted({pid for item in inside(host.gateway, lambda: listening(10025)) for pid in item.pids})


def _soon(condition: object) -> bool:
    end = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < end:
        if condition():  # type: ignore[operator]
            return True
        time.sleep(0.1)
    return False


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


@types("port of a bridge", "bridge that filters")
def test_a_port_of_a_bridge_and_a_bridge_that_filters(redirect: DaemonHost) -> None:
    redirect.run("ip link add br0 type bridge; ip link set br0 up; ip link set lan0 master br0")
    try:
        fix = diagnosed(redirect, "interface lan0", "it is a port of bridge br0")
        redirect.instance.config.write_text(redirect.instance.config.read_text().replace("lan0", "br0"))
        redirect.type(fix)
        redirect.run("sysctl -qw net.bridge.bridge-nf-call-iptables=1 net.bridge.bridge-nf-call-ip6tables=0")
        redirect.type(diagnosed(redirect, "bridge br0", "bridge-nf-call-iptables is on"))
        assert not [finding for finding in redirect.examine() if finding.step in {"bridge br0", "rules"}]
    finally:
        redirect.run("ip link set lan0 nomaster; ip link del br0")
        redirect.instance.config.write_text(redirect.instance.config.read_text().replace("br0", "lan0"))
        redirect.install()
    assert redirect.examine() == []


@pytest.mark.parametrize(
    ("method", "mode", "transparency"),
    [
        ("nftables", "redirect", "client"),
        ("nftables", "tproxy", "full"),
        ("iptables", "redirect", "full"),
        ("iptables", "tproxy", "client"),
    ],
)
def test_the_probe(method: str, mode: str, transparency: str) -> None:
    host = DaemonHost(RuleMethod=method, RuleMode=mode, TransparentProxy=transparency)
    try:
        links = run(host.gateway, "ip", "-br", "link")
        found = host.probe()
        assert all(finding.ok for finding in found), found
        source = {"client": ("198.18.254.5", "2001:2:0:fe02::1"), "full": ("198.18.254.10", "2001:2:0:fe03::2")}
        for address in source[transparency]:
            assert [f for f in found if f.text == f"the daemon connects to the server from {address}"]
        assert len([f for f in found if "the mail arrived, unchanged" in f.text]) == 4
        assert [f.step for f in found if "gets to the daemon" in f.text] == [f"rule path, lan0, IPv{v}" for v in (4, 6)]
        for step in ("greeting", "EHLO", "MAIL", "RCPT", "DATA"):
            assert len([f for f in found if re.search(rf"[(,] ?{step} \d+\.\d\d s", f.text)]) == 4
        passed = [f.text for f in found if f.step.startswith("path MTU")]
        assert passed == 2 * [
            "a long mail passes a link with an MTU of 1280 towards the server",
            "a long reply passes a link with an MTU of 1280 towards the client",
        ]
        assert _soon(lambda: run(host.gateway, "ip", "-br", "link") == links)
    finally:
        host.close()


@pytest.mark.parametrize(("method", "mode"), [
    ("nftables", "redirect"), ("nftables", "tproxy"), ("iptables", "redirect"), ("iptables", "tproxy"),
])  # fmt: skip
def test_the_probe_sends_a_mail_by_each_interface(method: str, mode: str) -> None:
    """One where connections are let in, and mail is not, is named."""
    with closing(DaemonHost(RuleMethod=method, RuleMode=mode, TransparentProxy="client")) as host:
        host.run("ip link add lan1 type veth peer name far1; ip link set lan1 up; ip link set far1 up")
        host.run("ip addr add 203.0.114.1/24 dev lan1; ip -6 addr add 2001:db8:3::1/64 dev lan1 nodad")
        host.instance.config.write_text(host.instance.config.read_text().replace("lan0", "lan0, lan1"))
        host.install()
        steps = [f"rule path, {name}, IPv{version}" for name in ("lan0", "lan1") for version in (4, 6)]
        paths = inside(host.gateway, lambda: list(firewall.look_at_rule_paths(host.setup())))
        assert [(f.step, f.ok) for f in paths] == [(step, True) for step in steps], paths
        assert all("a mail from " in f.text and "gets to the daemon" in f.text for f in paths)
        drop = "type filter hook input priority 0; iifname lan1 tcp flags & (psh | syn) == psh drop;"
        host.run(f"nft 'table inet other {{ chain input {{ {drop} }}; }}'")
        paths = inside(host.gateway, lambda: list(firewall.look_at_rule_paths(host.setup())))
        assert [(f.step, f.ok) for f in paths] == [(step, "lan0" in step) for step in steps], paths
        assert all("(silent at EHLO)" in f.text for f in paths if f.wrong), paths


DROP_ERRORS = """table inet silent {{
    chain pre {{
        type filter hook prerouting priority raw;
        iifname "{interface}" icmp type destination-unreachable drop
        iifname "{interface}" icmpv6 type packet-too-big drop
    }}
}}
"""


@pytest.mark.parametrize(("method", "mode", "transparency"), [
    ("nftables", "redirect", "full"), ("iptables", "tproxy", "full"), ("nftables", "tproxy", "client"),
])  # fmt: skip
def test_the_probe_finds_a_path_mtu_black_hole(
    method: str, mode: str, transparency: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxsmtp_tp.gateway.doctor.probe.STEP_SECONDS", 4.0)
    host = DaemonHost(
        RuleMethod=method, RuleMode=mode, TransparentProxy=transparency, ConnectTimeOut="2", FilterTimeout="2",
        FilterCommand="cat",
    )  # fmt: skip
    try:
        for interface, text in (
            (f"pxserve{OWN.slot}", "a long mail does not pass"),
            (OWN.probe, "a long reply does not"),
        ):
            host.run(f"nft -f - <<'END'\n{DROP_ERRORS.format(interface=interface)}END")
            found = [finding for finding in host.probe() if not finding.ok]
            assert [finding.step for finding in found] == ["path MTU, IPv4", "path MTU, IPv6"], found
            assert all(finding.text.startswith(text) for finding in found), found
            host.run("nft delete table inet silent")
    finally:
        host.close()


FAILING = {
    "its interpreter is missing": ("#!/nonexistent/python3\n", "the command cannot be run"),
    "carriage returns": ("#!/bin/sh\r\ncat\r\n", "the command cannot be run"),
    "a traceback": ("#!/usr/bin/env python3\nraise ValueError('no such key')\n", "ValueError: no such key"),
    "killed": ("#!/bin/sh\nkill -KILL $$\n", "killed by: SIGKILL"),
    "no output": ("#!/bin/sh\ncat >/dev/null\n", "exited with success, but without a message"),
}


@pytest.mark.parametrize("name", FAILING)
def test_the_probe_of_a_filter_that_fails(redirect: DaemonHost, name: str) -> None:
    script, reason = FAILING[name]
    redirect.filter.write_text(script)
    try:
        wrong = [finding for finding in redirect.probe() if finding.wrong]
    finally:
        redirect.filter.write_text("#!/bin/sh\ncat\n")
    steps = [f"probe, IPv{version}, {mail} mail" for version in (4, 6) for mail in ("bare", "ordinary")]
    assert [finding.step for finding in wrong] == steps
    assert all(reason in finding.text and "not by the filter's own code" in finding.text for finding in wrong), wrong


def test_the_probe_of_a_filter_command_that_is_not_there(redirect: DaemonHost) -> None:
    """Python's own exit status and text look like a refusal."""
    config = redirect.instance.config
    healthy = config.read_text()
    config.write_text(re.sub("FilterCommand: .*", "FilterCommand: python3 /missing.py", healthy))
    redirect.reload()
    try:
        found = redirect.probe()
    finally:
        config.write_text(healthy)
        redirect.reload()
    assert len([f for f in found if f.wrong and "can't open file" in f.text]) == 4, found


def test_the_probe_of_a_slow_filter(redirect: DaemonHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxsmtp_tp.gateway.doctor.probe.STEP_SECONDS", 2.0)
    redirect.filter.write_text("#!/bin/sh\nsleep 8\ncat\n")
    try:
        wrong = [finding for finding in redirect.probe() if finding.wrong]
    finally:
        redirect.filter.write_text("#!/bin/sh\ncat\n")
    assert [finding.step for finding in wrong] == ["probe, IPv4, bare mail", "probe, IPv6, bare mail"]
    assert all("the filter has not judged the mail within 2 s" in finding.text for finding in wrong)


@pytest.mark.parametrize("known", [True, False])
def test_a_mail_that_the_filter_keeps(redirect: DaemonHost, monkeypatch: pytest.MonkeyPatch, known: bool) -> None:
    """Neither ok nor wrong; without the daemon's status, the reply tells."""
    if not known:
        monkeypatch.setattr("tests.gateway.daemon_host.status_of", lambda _: None)
    redirect.filter.write_text(
        '#!/bin/sh\nmail=$(cat)\ncase $mail in *Date:*) echo "$mail";; *) echo 550 no date >&2; exit 1;; esac\n'
    )
    try:
        found = redirect.probe()
        assert is_well(found), found
        kept = [finding for finding in found if finding.state is State.KEPT]
        assert [f.step for f in kept] == ["probe, IPv4, bare mail", "probe, IPv6, bare mail"]
        assert all("the filter refused the mail, which was not delivered: 550 no date" in f.text for f in kept)
        for line in ("550 not today", "451 later", "250 gone"):
            redirect.filter.write_text(f"#!/bin/sh\necho '{line}' >&2\nexit 1\n")
            found = redirect.probe()
            assert len([f for f in found if f.state is State.KEPT and line in f.text and not f.ok]) == 4, found
            assert [f.step for f in found if f.state is State.UNSEEN] == ["probe, IPv4", "probe, IPv6"]
            assert not is_well(found)
    finally:
        redirect.filter.write_text("#!/bin/sh\ncat\n")


def test_what_the_probe_tells_of_filter_and_daemon(redirect: DaemonHost) -> None:
    redirect.filter.write_text("#!/bin/sh\necho X-Seen: yes\ncat\n")
    assert len([f for f in redirect.probe() if "changed by the gateway" in f.text]) == 4
    redirect.filter.write_text("#!/bin/sh\ncat\n")
    redirect.instance.stop()
    found = [f for f in redirect.probe() if f.step.startswith("probe")]
    assert [f.ok for f in found] == [False, False]
    assert "no greeting within" in found[0].text
    assert "ConnectionRefusedError" in found[0].text
    redirect.instance.start()
    redirect.run("nft delete table inet proxsmtp_setup")
    assert "before the rules are in place" in redirect.probe()[0].text
    redirect.install()


def test_doctor_and_its_probe_log_nothing() -> None:
    """In the log, in events, and in all totals: also its connections to listeners, and this host's own mail."""
    with closing(DaemonHost(TransparentProxy="client", RuleLocal="on", Instance="silent")) as host:
        socket_path, events = host.folder / "listener", host.temp / "events"
        host.folder.chmod(0o777)  # the daemon's user makes the socket
        given = dict(host.instance.directives)
        host.instance.directives = given | {"Listen": f"10025, {socket_path}", "EventLog": str(events)}
        host.restart()
        start = len(host.instance.log)
        command = [str(program()), "doctor", "-f", str(host.instance.config), "--state-dir", str(host.state), "--json"]
        for more in ([], ["--probe"]):
            done = host.instance.host.run(*command, *more, seconds=WAIT_SECONDS, check=False)
            found = json.loads(done.stdout)["findings"]
            seen = {finding["step"] for finding in found if finding["state"] == "ok"}
            assert {"daemon", f"listener, {socket_path}"} <= seen, found
        assert {"probe, own mail, IPv4", "probe, own mail, IPv6", "probe, IPv4", "probe, IPv6"} <= seen
        lines = host.instance.log[start:].splitlines()
        assert [line for line in lines if "control: probe" not in line] == []
        assert len(lines) == 2  # one at the beginning of the probe, and one at its end
        assert not events.exists()
        (status,) = json.loads(host.instance.command("status", "--json"))
        counted = {name: number for series in status["totals"].values() for name, number in series.items() if number}
        assert counted == {}
        assert not any(status["counters"].values())
        assert status["servers_down"] == []


def test_an_interrupted_probe_leaves_nothing(redirect: DaemonHost) -> None:
    """kill -9 of the probe in the middle of its mail."""
    redirect.filter.write_text(f"#!/bin/sh\ntouch {redirect.temp}/began\ncat >/dev/null\nsleep 30\n")
    began = redirect.temp / "began"
    links = run(redirect.gateway, "ip", "-br", "link")
    code = f"""
from pathlib import Path
from tests.gateway.daemon_host import *
path = {str(redirect.instance.config)!r}
settings = read_config(path)
list(probe.probe(examination.setup_of(settings, path, options_from(settings), Store(Path({str(redirect.state)!r})))))
"""
    process = subprocess.Popen(["ip", "netns", "exec", redirect.gateway, sys.executable, "-c", code])
    try:
        assert _soon(lambda: began.exists() or process.poll() is not None)
        assert process.poll() is None
        assert "pxprobe" in run(redirect.gateway, "ip", "-br", "link")
        process.kill()
        process.wait()
        assert _soon(lambda: run(redirect.gateway, "ip", "-br", "link") == links)
    finally:
        process.kill()
        process.wait()
        redirect.filter.write_text("#!/bin/sh\ncat\n")
        began.unlink(missing_ok=True)
        redirect.restart()
    assert redirect.examine() == []


@pytest.mark.parametrize(("method", "words"), [("nftables", ""), ("iptables", "no route leads on")])
def test_ipv6_of_clients_without_a_way_out(method: str, words: str) -> None:
    """It is intercepted, and nothing can come of it: with nftables the rules say so to the client."""
    with closing(DaemonHost(RuleMethod=method, TransparentProxy="client")) as host:

        def wrong() -> list[str]:
            return [finding.text for finding in host.examine() if finding.step == "IPv6, way out"]

        host.run("ip -6 addr flush dev wan0 scope global")
        assert [words in text for text in wrong()] == ([True] if words else [])
        host.run("ip -6 route add default via 2001:db8:1::99 dev lan0")  # back to the clients: no way out
        assert bool(wrong()) is bool(words)
        host.run("ip -6 route add 2001:db8:77::/64 dev wan0")
        assert wrong() == []


def test_an_ordinary_user(redirect: DaemonHost) -> None:
    """It sees what it may, and says what it could not look at."""
    redirect.instance.config.chmod(0o644)
    code = "import sys; from proxsmtp_tp.cli.main import main; sys.exit(main())"
    user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    doctor = [sys.executable, "-c", code, "doctor", "--probe", "-f", str(redirect.instance.config)]
    done = subprocess.run(
        ["ip", "netns", "exec", redirect.gateway, *user, *doctor],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert done.returncode == 1, done
    assert "ok     interface lan0: it is up" in lines
    assert "ok     daemon: it answers" in lines
    assert "?      rules: only root can look at it" in lines
    assert "?      probe: only root can send it" in lines
    assert re.fullmatch(r"none of \d+ wrong, \d+ not seen \(run it as root\)", lines[-1]), lines
