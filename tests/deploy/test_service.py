"""docs/deployment.md, "By hand", typed exactly as written, on a fresh gateway."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.lab.scenario import Setup
from tests.deploy import acceptance, documented_commands, manual_install
from tests.deploy.prepare import NEXT_VERSION
from tests.typed_fixes import typed, types

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.deploy.machines import Machines

pytestmark = pytest.mark.timeout(300)

PAGE, HEADING = "deployment.md", "## By hand"
DAEMON, RULES = "proxsmtp-tp@gateway.service", "proxsmtp-tp-rules@gateway.service"
STATES = "/run/proxsmtp-tp-rules"
CLOSED = """table inet closed { chain forward { type filter hook forward priority filter; policy accept;
    tcp dport 25 drop
}
}
"""
FORWARD = ("sysctl", "-q", "-w", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")


@pytest.fixture(scope="module")
def gateway(machines: Machines) -> Iterator[Machines]:
    """It routes already, and the wheel and the sample filter have been copied to it."""
    machines.gateway.run(*FORWARD)
    with manual_install.wheels(machines):
        yield machines
        machines.gateway.run("rm", "-r", "/etc/proxsmtp-tp")


def units(machines: Machines) -> str:
    """What systemd knows of ours."""
    return machines.gateway.run("systemctl", "list-unit-files", "--no-legend", "--no-pager", "proxsmtp*", check=False)


def test_the_page_makes_a_gateway(gateway: Machines) -> None:
    install, look = documented_commands.blocks(PAGE, HEADING)
    documented_commands.follow(gateway.gateway, install)
    acceptance.accept(gateway.site, Setup("redirect", "client"))
    documented_commands.follow(gateway.gateway, look)


def test_a_second_install_service_changes_nothing(gateway: Machines) -> None:
    said = gateway.gateway.run("proxsmtp-tp", "install-service", "gateway")
    assert said == "running: proxsmtp-tp.target proxsmtp-tp-rules@gateway.service proxsmtp-tp@gateway.service\n"


def test_metrics_are_served_by_a_hardened_unit(gateway: Machines) -> None:
    run, unit = gateway.gateway.run, "proxsmtp-tp-metrics@gateway.service"
    run("proxsmtp-tp", "install-service", "gateway", "--metrics", "127.0.0.1:9725")
    read = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:9725/metrics', timeout=10).read().decode())"

    def served() -> bool:
        return "\nproxsmtp_workers " in run("python3", "-c", read, check=False)

    assert acceptance.wait_until(served), run("systemctl", "status", "--no-pager", unit, check=False)
    said = run("systemd-analyze", "security", "--no-pager", unit)
    figure = re.search(r"Overall exposure level for \S+: ([0-9.]+)", said)
    assert figure is not None
    assert float(figure[1]) <= 1.5, said
    run("proxsmtp-tp", "install-service", "gateway")
    assert run("systemctl", "is-active", unit) == "active\n", "it stays until it is ended"
    run("proxsmtp-tp", "install-service", "gateway", "--metrics", "off")
    assert run("systemctl", "is-active", unit, check=False) == "inactive\n"


def rules_there(machines: Machines) -> bool:
    """Whether our table is on the gateway."""
    return "proxsmtp_gateway" in machines.gateway.run("nft", "list", "tables")


def test_a_reload_of_the_rules_that_fails_is_tried_again(gateway: Machines) -> None:
    run = gateway.gateway.run
    # What install-rules cannot use for now.
    run("chown", "nobody", STATES)
    run("nft", "flush", "ruleset")
    run("systemctl", "reload", "--no-block", RULES)
    assert acceptance.wait_until(lambda: "trying again" in run("journalctl", "-u", RULES, "--no-pager"))
    run("chown", "root", STATES)
    assert acceptance.wait_until(lambda: rules_there(gateway))
    assert acceptance.wait_until(lambda: run("systemctl", "is-active", RULES, check=False) == "active\n")


def test_a_stop_while_a_reload_is_tried_again_removes_the_rules(gateway: Machines) -> None:
    run = gateway.gateway.run
    run("chown", "nobody", STATES)
    run("systemctl", "reload", "--no-block", RULES)
    assert acceptance.wait_until(lambda: run("systemctl", "is-active", RULES, check=False) == "reloading\n")
    run("chown", "root", STATES)
    run("systemctl", "stop", RULES)
    assert not rules_there(gateway)
    run("systemctl", "start", RULES)
    assert rules_there(gateway)


def test_refused_rules_leave_no_mail_unfiltered(gateway: Machines) -> None:
    """None are in place, as after a boot, and the host does not forward what they would intercept."""
    run = gateway.gateway.run
    run("systemctl", "stop", RULES)
    run("nft", "-f", "-", text=CLOSED)
    run("systemctl", "start", RULES, check=False)
    look = ("proxsmtp-tp", "check-rules", "-f", "/etc/proxsmtp-tp/gateway.conf")
    assert "refusing mail" in run(*look, check=False)
    log = run("journalctl", "-u", RULES, "--no-pager")
    assert "mail to port 25 is refused" in log
    # It was tried, also in the sandbox of the unit.
    assert "nft table inet closed (tcp dport 25 drop) does not forward 192.0.2." in log
    run("nft", "delete", "table", "inet", "closed")
    assert acceptance.wait_until(lambda: run("systemctl", "is-active", RULES, check=False) == "active\n")
    assert "in place" in run(*look)


CONFIG = "/etc/proxsmtp-tp/gateway.conf"
DOCTOR = ("proxsmtp-tp", "doctor", "-f", CONFIG)


def wrong(machines: Machines) -> list[str]:
    """What doctor says is wrong, with the fix of each."""
    said = machines.gateway.run(*DOCTOR, check=False)
    found = re.findall(r"^WRONG  (.*(?:\n       fix: .*)?)", said, re.MULTILINE)
    return [item.replace("\n       fix: ", " FIX ") for item in found]


@pytest.fixture
def configure(gateway: Machines) -> Iterator[Callable[[str], None]]:
    """Replaces lines of the configuration, or adds them; restores it."""
    healthy = gateway.gateway.run("cat", CONFIG)

    def change(line: str) -> None:
        name = line.partition(":")[0]
        kept = "".join(f"{old}\n" for old in healthy.splitlines() if not old.startswith(f"{name}:"))
        gateway.gateway.run("sh", "-c", f"cat >{CONFIG}", text=f"{kept}{line}\n")

    yield change
    gateway.gateway.run("sh", "-c", f"cat >{CONFIG}", text=healthy)
    gateway.gateway.run("proxsmtp-tp", "install-service", "gateway")
    gateway.gateway.run("systemctl", "restart", DAEMON, RULES)
    assert wrong(gateway) == []


def fix_of(machines: Machines, text: str) -> str:
    """The fix that doctor prints for what it says."""
    found = [item.partition(" FIX ") for item in wrong(machines) if text in item]
    assert found, machines.gateway.run(*DOCTOR, check=False)
    said, fix = found[0][0], found[0][-1]
    assert text in said, found
    return fix


def type_fix(machines: Machines, text: str) -> str:
    """Type the fix that doctor prints for what it says; what that says."""
    fix = fix_of(machines, text)
    said = machines.gateway.run("sh", "-ec", fix)
    typed(fix)
    return said


@types("unit lacks a capability", "unit's daemon lacks CAP_NET_RAW", "unit's listener is not transparent", "unit")
def test_client_to_full(gateway: Machines, configure: Callable[[str], None]) -> None:
    """The drop-in with CAP_NET_RAW is missing: a restart would end with a daemon that cannot start."""
    configure("TransparentProxy: full")
    fixes = {fix_of(gateway, text) for text in ("is not transparent", "lacks CAP_NET_RAW", "does not give CAP_NET_RAW")}
    assert fixes == {"proxsmtp-tp install-service gateway"}
    said = type_fix(gateway, "does not give CAP_NET_RAW")
    assert f"restart {DAEMON}" in said
    assert f"reload-or-restart {RULES}" in said
    assert wrong(gateway) == []
    # As it was typed before: the daemon ends, and doctor shows its last words and the fix that works.
    configure("TransparentProxy: client")
    gateway.gateway.run("proxsmtp-tp", "install-service", "gateway")
    configure("TransparentProxy: full")
    gateway.gateway.run("systemctl", "restart", DAEMON, check=False)
    assert acceptance.wait_until(lambda: any("its log ends: " in item for item in wrong(gateway)))
    assert any("CAP_NET_RAW" in item.partition("its log ends: ")[2] for item in wrong(gateway))
    type_fix(gateway, "does not give CAP_NET_RAW")
    assert acceptance.wait_until(lambda: wrong(gateway) == [])


@types("unit's directory is read-only", "unit's directory", "private directory", "restart, unit")
def test_a_temp_directory(gateway: Machines, configure: Callable[[str], None]) -> None:
    """That of README and man page works; another one after the fixes that doctor prints."""
    run = gateway.gateway.run
    configure("TempDirectory: /var/lib/proxsmtp-tp/spool")
    run("systemctl", "restart", DAEMON)
    assert wrong(gateway) == []
    pid = run("systemctl", "show", "--property=MainPID", "--value", DAEMON).strip()
    assert "STATE_DIRECTORY=/var/lib/proxsmtp-tp/gateway\0" in run("cat", f"/proc/{pid}/environ")
    run("install", "-d", "-m", "0700", "-o", "proxsmtp-tp", "/srv/spool")
    configure("TempDirectory: /srv/spool")
    run("systemctl", "restart", DAEMON)
    type_fix(gateway, "/srv/spool is read-only for the daemon, by its unit")
    assert wrong(gateway) == []
    run("rmdir", "/srv/spool")
    run("systemctl", "restart", DAEMON)
    type_fix(gateway, "/srv/spool: No such file")
    assert wrong(gateway) == []
    run("rmdir", "/srv/spool")
    configure("TempDirectory: /tmp/spool")
    run("systemctl", "restart", DAEMON)
    run("rmdir", "/var/cache/proxsmtp-tp/gateway/spool")
    type_fix(gateway, "/tmp/spool: No such file")
    assert wrong(gateway) == []


def test_a_filter_is_tried_in_the_sandbox_of_the_unit(gateway: Machines, configure: Callable[[str], None]) -> None:
    """With the command of the file, which the daemon has not read yet."""
    run = gateway.gateway.run
    run("sh", "-c", "printf 'Subject: x\\n\\nx\\n' >/root/a.eml")
    configure("FilterCommand: { id -un; grep -h Seccomp: /proc/self/status; touch /etc/x; } >&2; cat")
    said = json.loads(run("proxsmtp-tp", "try-filter", "--json", "/root/a.eml"))
    user, seccomp, touched = said["errors"].splitlines()
    assert (user, seccomp.split()[1]) == ("proxsmtp-tp", "2")
    assert "Read-only file system" in touched
    assert "run by the daemon" in said["notes"][0]
    run("rm", "/root/a.eml")


def test_a_filter_cannot_read_the_keys_of_the_cas(gateway: Machines, configure: Callable[[str], None]) -> None:
    """They are root's, and systemd passes them on to the daemon; also after a restart and a crash."""
    run = gateway.gateway.run
    run("/opt/proxsmtp-tp/bin/pip", "install", "-q", "cryptography", "dnspython")
    run("sh", "-c", "printf 'Subject: x\\n\\nx\\n' >/root/a.eml")
    kept = ("systemctl", "show", "--property=NFileDescriptorStore", "--value", DAEMON)
    listeners = run(*kept)
    folder = "/var/lib/proxsmtp-tp/gateway/tls"
    configure(
        f"FilterCommand: {{ id -un; for file in {folder}/*; do head -c 1 $file; done; }} >&2; cat\nTls: terminate"
    )
    run("systemctl", "restart", DAEMON)
    owned = run("sh", "-c", f"cd {folder} && stat -c '%n %U %a' . *")
    assert sorted(owned.splitlines()) == [
        ". root 755", "ca.key root 600", "ca.pem root 644", "untrusted-ca.key root 600", "untrusted-ca.pem root 644"
    ]  # fmt: skip

    def running() -> str:
        """The process that answers; "": none does."""
        found = json.loads(run("proxsmtp-tp", "status", "--json", check=False) or "[]")
        return str(found[0]["pid"]) if found else ""

    def another(before: str) -> bool:
        return running() not in {"", before}

    for how in ("", "restart", "crash"):
        before = running()
        if how:
            run(*(("systemctl", "restart", DAEMON) if how == "restart" else ("kill", "-KILL", before)))
            assert acceptance.wait_until(partial(another, before))
        assert run(*kept) == listeners  # systemd does not keep the keys
        user, *read = json.loads(run("proxsmtp-tp", "try-filter", "--json", "/root/a.eml"))["errors"].splitlines()
        assert user == "proxsmtp-tp"
        assert len([line for line in read if "Permission denied" in line]) == 2, read
        # Its descriptors and its memory belong to root, too.
        assert run("stat", "-c", "%U", f"/proc/{running()}/fd", f"/proc/{running()}/mem").split() == ["root", "root"]
    exported = run("proxsmtp-tp", "tls-ca", "export")
    assert "BEGIN CERTIFICATE" in exported
    assert "PRIVATE" not in exported
    run("rm", "/root/a.eml")


@types("start, unit", "daemon does not run")
def test_a_daemon_that_does_not_run(gateway: Machines, configure: Callable[[str], None]) -> None:
    run = gateway.gateway.run
    run("systemctl", "stop", DAEMON)
    type_fix(gateway, "no process listens on port 10025: proxsmtp-tp@gateway.service is inactive")
    assert wrong(gateway) == []
    configure("Listen: 192.0.2.99:10025")
    run("systemctl", "restart", DAEMON, check=False)
    found = wrong(gateway)
    assert any("the daemon could not: Listen: 192.0.2.99:10025: Cannot assign requested address" in i for i in found)


@types("reload, unit", "file has changed", "daemon hangs, unit")
def test_a_file_that_has_changed_and_a_daemon_that_hangs(gateway: Machines, configure: Callable[[str], None]) -> None:
    configure("MaxConnections: 50")
    type_fix(gateway, "the file has changed since the daemon read it")
    assert wrong(gateway) == []
    gateway.gateway.run("systemctl", "kill", "--signal=STOP", DAEMON)
    type_fix(gateway, "it hangs")
    assert wrong(gateway) == []


@types("no unit", "unit has changed on disk")
def test_the_unit(gateway: Machines) -> None:
    """It has changed since systemd read it, and it is gone."""
    run = gateway.gateway.run
    run("mkdir", "-p", f"/etc/systemd/system/{DAEMON}.d")
    run("sh", "-c", f"printf '[Service]\nNice=1\n' >/etc/systemd/system/{DAEMON}.d/99-nice.conf")
    type_fix(gateway, "has changed on disk since systemd read it")
    assert wrong(gateway) == []
    run("systemctl", "stop", DAEMON)
    run("rm", f"/etc/systemd/system/{DAEMON}.d/99-nice.conf", "/etc/systemd/system/proxsmtp-tp@.service")
    run("systemctl", "daemon-reload")
    type_fix(gateway, f"there is no {DAEMON}")
    assert wrong(gateway) == []


@types("nobody takes log lines")
def test_the_log_daemon_is_gone(gateway: Machines) -> None:
    run = gateway.gateway.run
    units = run("systemctl", "list-units", "--plain", "--no-legend", "systemd-journald*").split()
    run("systemctl", "stop", *[name for name in units if name.startswith("systemd-journald")])
    type_fix(gateway, "nobody takes log lines")
    assert wrong(gateway) == []
    run("systemctl", "reload", DAEMON)
    assert "the new configuration is in force" in run("journalctl", "-u", DAEMON, "--no-pager")


def test_a_stop_of_a_daemon_that_waits_for_its_restart(gateway: Machines) -> None:
    """What filters have left behind ends, too."""
    run = gateway.gateway.run
    pid = run("systemctl", "show", "--property=MainPID", "--value", DAEMON).strip()
    manual_install.leave_behind(gateway, DAEMON)
    run("kill", "-KILL", pid)
    run("systemctl", "stop", DAEMON)
    left = acceptance.wait_until(lambda: run("pgrep", "-l", "-u", "proxsmtp-tp", check=False) == "")
    assert left, run("systemctl", "status", DAEMON, check=False)
    run("systemctl", "start", DAEMON)
    assert wrong(gateway) == []


def test_it_comes_back_from_a_reboot(gateway: Machines) -> None:
    gateway.stop_gateway()
    gateway.boot_gateway()
    gateway.gateway.run(*FORWARD)
    acceptance.accept_queues(gateway.site)


def test_the_page_upgrades_it(gateway: Machines) -> None:
    """The next version stays."""
    [steps] = documented_commands.blocks(PAGE, "### By hand")
    named = [
        replace(
            step,
            command=step.command.replace("NEXT", NEXT_VERSION),
            shown=[line.replace("NEXT", NEXT_VERSION) for line in step.shown],
        )
        for step in steps
    ]
    documented_commands.follow(gateway.gateway, named)
    assert f"version {NEXT_VERSION}," in gateway.gateway.run("proxsmtp-tp", "status")
    assert gateway.gateway.run("proxsmtp-tp", "check-rules").startswith("rules of instance gateway: in place\n")


def test_remove_service_leaves_nothing(gateway: Machines) -> None:
    # Also where the unit waits for its next try, and mail is refused: it is stopped without ExecStop.
    gateway.gateway.run("systemctl", "stop", RULES)
    gateway.gateway.run("nft", "-f", "-", text=CLOSED)
    gateway.gateway.run("systemctl", "start", RULES, check=False)
    assert rules_there(gateway)
    gateway.gateway.run("proxsmtp-tp", "remove-service", "--purge")
    gateway.gateway.run("nft", "delete", "table", "inet", "closed")
    assert units(gateway) == ""
    assert "proxsmtp" not in gateway.gateway.run("nft", "list", "ruleset")
    assert "proxsmtp" not in gateway.gateway.run("getent", "passwd")
    assert gateway.gateway.run("proxsmtp-tp", "remove-service").endswith("there was nothing to remove\n")
    acceptance.accept_direct(gateway.site)
