"""`doctor --probe` sends a mail through the gateway, and says what happens to it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from contextlib import closing

import pytest

from proxsmtp_tp.cli.doctor_actions import is_well
from proxsmtp_tp.gateway.doctor import firewall
from proxsmtp_tp.gateway.doctor.findings import State
from proxsmtp_tp.gateway.plan import Numbers, preferred_slot
from proxsmtp_tp.lab.gateway import program
from tests.gateway.daemon_host import WAIT_SECONDS, DaemonHost, soon
from tests.gateway.network import inside, run

OWN = Numbers(preferred_slot("setup"))


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
        assert soon(lambda: run(host.gateway, "ip", "-br", "link") == links)
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
        assert soon(lambda: began.exists() or process.poll() is not None)
        assert process.poll() is None
        assert "pxprobe" in run(redirect.gateway, "ip", "-br", "link")
        process.kill()
        process.wait()
        assert soon(lambda: run(redirect.gateway, "ip", "-br", "link") == links)
    finally:
        process.kill()
        process.wait()
        redirect.filter.write_text("#!/bin/sh\ncat\n")
        began.unlink(missing_ok=True)
        redirect.restart()
    assert redirect.examine() == []
