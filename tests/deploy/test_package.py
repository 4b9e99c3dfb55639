"""The packages' whole life on fresh gateways: installed, first mail, upgraded under load, removed, purged."""

from __future__ import annotations

import re
import subprocess
import zipfile
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.lab.gateway import changes
from proxsmtp_tp.lab.scenario import MAILS, Setup
from tests.deploy import acceptance, documented_commands
from tests.deploy.load import load
from tests.deploy.machines import wheel
from tests.deploy.prepare import NEXT_VERSION, PACKAGES, READERS
from tools.deb import TREE, VERSION, package
from tools.roots import DEBIAN_12, DEBIAN_13, UBUNTU_24_04

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.deploy.container import Container
    from tests.deploy.machines import Machines
    from tools.roots import Release

pytestmark = pytest.mark.timeout(600)

CONFIGURATION = "/etc/proxsmtp-tp/gateway.conf"
UNITS = (
    "proxsmtp-tp.target",
    "proxsmtp-tp-rules@gateway.service",
    "proxsmtp-tp-rules-watch@gateway.service",
    "proxsmtp-tp@gateway.service",
)
METRICS = "proxsmtp-tp-metrics@gateway.service"
EXAMPLES = "/usr/share/doc/proxsmtp-tp/examples"
OWN_UNIT = "/etc/systemd/system/proxsmtp-tp@.service"
# What runs, logs, and what apt, dpkg and Python change with each package; there only files with our name.
CHANGING = ("/proc", "/sys", "/run", "/dev", "/tmp", "/root", "/var/cache", "/var/lib/apt", "/var/lib/dpkg", "/var/log",
    "/var/lib/systemd/timers",
)  # fmt: skip
APT = "export DEBIAN_FRONTEND=noninteractive; apt-get -q -y --no-install-recommends"
# Also what a package of the release itself would only recommend or suggest.
AUTOREMOVE = "-o APT::AutoRemove::RecommendsImportant=false -o APT::AutoRemove::SuggestsImportant=false"
PAGE, HEADING = "deployment.md", "## As a Debian package"
FORWARD = ("sysctl", "-q", "-w", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
RELEASES = (DEBIAN_12, DEBIAN_13, UBUNTU_24_04)


@contextmanager
def fresh(machines: Machines, release: Release) -> Iterator[Container]:
    """A gateway of a release that routes, with the packages in /root, and those of the next version in /root/next."""
    with machines.gateway_of(release) as gateway:
        (gateway.root / "root/next").mkdir()
        for path in PACKAGES.glob("*.deb"):
            folder = "root/next" if f"_{NEXT_VERSION}-" in path.name else "root"
            (gateway.root / folder / path.name).write_bytes(path.read_bytes())
        gateway.run(*FORWARD)
        yield gateway


def all_files(gateway: Container) -> set[str]:
    """Files and folders of the gateway."""
    pruned = " -o ".join(f"-path {folder}" for folder in CHANGING)
    script = f"find / -xdev \\( {pruned} \\) -prune -o -print; find /run /var/cache /var/log -name '*proxsmtp*'"
    found = gateway.run("sh", "-ec", script).splitlines()
    return {path for path in found if "/__pycache__" not in path or "proxsmtp" in path}


def install(gateway: Container, release: Release, version: str = VERSION) -> str:
    """As an administrator does; what apt-get says."""
    folder = "/root/next" if version == NEXT_VERSION else "/root"
    name = package(release, PACKAGES, version).name
    return gateway.run("sh", "-ec", f"{APT} install {folder}/{name} 2>&1", seconds=300)


def follow_the_page(gateway: Container, release: Release) -> None:
    """What docs/deployment.md tells an administrator to type, with the package of this release."""
    (steps,) = documented_commands.blocks(PAGE, HEADING)
    shown = f"./{package(DEBIAN_12, PACKAGES).name}"
    assert shown in steps[0].command
    own = f"./{package(release, PACKAGES).name}"
    documented_commands.follow(gateway, [replace(step, command=step.command.replace(shown, own)) for step in steps])


def follow_the_readme(gateway: Container, heading: str, changes: dict[str, str]) -> None:
    """The first block of shell below a heading of README.md, with these changes, in /root."""
    _, _, section = (TREE / "README.md").read_text().partition(f"\n## {heading}\n")
    found = re.search(r"```sh\n(.*?)```", section, re.DOTALL)
    assert found is not None
    script = found[1]
    for old, new in changes.items():
        assert old in script, old
        script = script.replace(old, new)
    gateway.run("sh", "-ec", f"cd /root; {script}", seconds=300)


def active(gateway: Container) -> list[str]:
    """Units of ours that run."""
    said = gateway.run("systemctl", "list-units", "--plain", "--no-legend", "--state=active,activating", "proxsmtp-tp*")
    return sorted(line.split()[0] for line in said.splitlines() if not line.startswith("system-"))


def look_at_what_is_installed(gateway: Container) -> None:
    """Nothing runs, nothing is enabled; program, pages, completion, and compiled modules are there."""
    run = gateway.run
    assert active(gateway) == []
    assert run("systemctl", "is-enabled", "proxsmtp-tp.target", check=False) == "disabled\n"
    assert run("proxsmtp-tp", "--version") == f"proxsmtp-tp {VERSION} (pure)\n"
    assert f"(version {VERSION})" in run("/usr/lib/proxsmtp-tp/proxsmtpd", "-v")
    assert run("find", "/etc/proxsmtp-tp", "-type", "f") == ""
    assert run("dpkg", "--verify", "proxsmtp-tp") == ""
    listed = run("dpkg", "-L", "proxsmtp-tp").splitlines()
    for unit in (TREE / "systemd").glob("*.[st][ea]*"):
        if unit.suffix != ".sysusers":
            assert f"/usr/lib/systemd/system/{unit.name}" in listed
    for name in ("man8/proxsmtp-tp.8.gz", "man8/proxsmtpd.8tp.gz", "man5/proxsmtpd.conf.5tp.gz"):
        assert f"/usr/share/man/{name}" in listed
    assert "/usr/share/bash-completion/completions/proxsmtp-tp" in listed
    assert "/usr/share/zsh/vendor-completions/_proxsmtp-tp" in listed
    assert "/etc/needrestart/conf.d/proxsmtp-tp.conf" in listed
    assert run("stat", "-c", "%U", "/run/proxsmtp-tp").strip() == "proxsmtp-tp"
    site = "/usr/lib/proxsmtp-tp/site/proxsmtp_tp/cli"
    assert run("sh", "-c", f"ls {site}/__pycache__ | wc -l") == run("sh", "-c", f"ls {site}/*.py | wc -l")


@pytest.mark.parametrize("release", RELEASES, ids=lambda release: release.suite)
def test_install_first_mail_remove_purge(machines: Machines, release: Release) -> None:
    with fresh(machines, release) as gateway:
        before, files = machines.state(), all_files(gateway)
        run = gateway.run
        if release is DEBIAN_13:  # the others as docs/deployment.md says
            follow_the_readme(gateway, "Install", {"deb12": "deb13"})
            look_at_what_is_installed(gateway)
            here = {"eth1": "lan", "proxsmtp_tp/lab/sample-filter.sh": f"{EXAMPLES}/sample-filter.sh"}
            follow_the_readme(gateway, "Use it", here)
        else:
            install(gateway, release)
            look_at_what_is_installed(gateway)
            follow_the_page(gateway, release)
        assert active(gateway) == sorted(UNITS)
        acceptance.accept(machines.site, Setup("redirect", "client"))
        serve_metrics(gateway)
        if release is DEBIAN_13:
            look_at_an_upgrade(machines, release)
        if release is not DEBIAN_13:  # whose iptables 1.8.11 python-iptables does not know
            look_at_iptables(machines)
        if release is UBUNTU_24_04:  # whose needrestart restarts services without a question
            look_at_manual_pages(gateway)
            look_at_needrestart(gateway)

        # What is removed can be installed again, with its configuration, and starts at the next boot. Also where the
        # administrator has a copy of a unit (systemctl edit --full).
        run("sh", "-ec", f"cp /usr/lib/systemd/system/proxsmtp-tp@.service {OWN_UNIT}; systemctl daemon-reload")
        run("sh", "-ec", f"{APT} remove proxsmtp-tp")
        assert active(gateway) == []
        assert "proxsmtp" not in run("nft", "list", "ruleset")
        assert ":PXIN" not in run("sh", "-c", "iptables-legacy-save || :")
        assert run("find", "/run", "-name", "proxsmtp*") == ""
        acceptance.accept_direct(machines.site)
        install(gateway, release)
        assert active(gateway) == []
        run("systemctl", "start", "proxsmtp-tp.target")
        assert acceptance.wait_until(lambda: active(gateway) == sorted(UNITS))  # it does not wait for what it starts
        run("systemctl", "start", METRICS)

        run("sh", "-ec", f"{APT} purge proxsmtp-tp")
        # Not in the same step: without iptables its rules could not be removed, and so neither could the package.
        more = " ".join(("iptables", *(READERS if release is UBUNTU_24_04 else ())))
        run("sh", "-ec", f"{APT} {AUTOREMOVE} purge --autoremove {more}")
        assert changes(before, machines.state()) == []
        assert all_files(gateway) ^ files == set()
        acceptance.accept_direct(machines.site)


def serve_metrics(gateway: Container) -> None:
    """For Prometheus, by a unit of its own, which is not part of the target."""
    gateway.run("proxsmtp-tp", "install-service", "gateway", "--metrics", "127.0.0.1:9725")
    assert active(gateway) == sorted((*UNITS, METRICS))


def served_version(gateway: Container) -> str:
    """Of the daemon, as Prometheus reads it."""
    read = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:9725/metrics', timeout=10).read().decode())"
    found = re.search(r'(?m)^proxsmtp_build_info{.*version="([^"]*)"', gateway.run("python3", "-c", read))
    assert found is not None
    return found[1]


def look_at_an_upgrade(machines: Machines, release: Release) -> None:
    """Under load, with every unit running: no client is refused, and what runs afterwards is the new version."""
    gateway = machines.gateway
    before = {unit: main_pid(gateway, unit) for unit in (*UNITS[2:], METRICS)}
    with load(machines):
        install(gateway, release, NEXT_VERSION)
    assert machines.daemon_version() == NEXT_VERSION
    assert served_version(gateway) == NEXT_VERSION
    assert active(gateway) == sorted((*UNITS, METRICS))
    for unit, pid in before.items():
        assert main_pid(gateway, unit) not in {pid, "0"}, unit
    gateway.run("proxsmtp-tp", "check-rules", "-f", CONFIGURATION)


def main_pid(gateway: Container, unit: str) -> str:
    """The first process of a unit; 0: none."""
    return gateway.run("systemctl", "show", "-p", "MainPID", "--value", unit).strip()


def look_at_iptables(machines: Machines) -> None:
    """RuleMethod iptables, in full mode: its library is in the package, compiled for the release's Python."""
    run = machines.gateway.run
    run("sh", "-ec", f"{APT} install iptables")
    run("sh", "-c", f"cat >>{CONFIGURATION}", text="RuleMethod: iptables\nRuleMode: tproxy\nTransparentProxy: full\n")
    run("proxsmtp-tp", "install-service", "gateway")
    run("systemctl", "restart", "proxsmtp-tp@gateway")
    run("systemctl", "reload", "proxsmtp-tp-rules@gateway")
    assert ":PXIN" in run("iptables-legacy-save")
    acceptance.accept_dialogue(machines.site, Setup("tproxy", "full"), MAILS[0])


def look_at_manual_pages(gateway: Container) -> None:
    """man(1) finds and shows them, also with the sections of other packages in their names."""
    gateway.run("sh", "-ec", f"{APT} install {' '.join(READERS)}")
    for words, shown in (
        ("proxsmtp-tp", "transparent SMTP filtering proxy"),
        ("proxsmtpd.conf", "FilterCommand"),
        ("5tp proxsmtpd.conf", "FilterCommand"),
        ("8 proxsmtpd", "proxsmtpd"),
        ("8tp proxsmtpd", "proxsmtpd"),
    ):
        assert shown in gateway.run("sh", "-ec", f"MANPAGER=cat man {words} 2>&1 | col -b"), words


def look_at_needrestart(gateway: Container) -> None:
    """The interpreter is replaced, as by an upgrade: needrestart names the daemon, and leaves it running."""
    program = gateway.run("readlink", "-f", "/usr/bin/python3").strip()
    gateway.run("sh", "-ec", f"cp -a {program} /tmp/python; mv /tmp/python {program}")
    before = gateway.run("systemctl", "show", "-p", "MainPID", "proxsmtp-tp@gateway")
    said = gateway.run("sh", "-ec", "DEBIAN_FRONTEND=noninteractive needrestart -l -r a 2>&1", seconds=300)
    assert "systemctl restart proxsmtp-tp@gateway.service" in said.partition("deferred")[2]
    assert gateway.run("systemctl", "show", "-p", "MainPID", "proxsmtp-tp@gateway") == before


def test_upgrades(machines: Machines) -> None:
    """Beside Debian's proxsmtpd 1.10, which has files of the same names."""
    release = DEBIAN_12
    with fresh(machines, release) as gateway:
        gateway.run("sh", "-ec", f"{APT} install proxsmtp </dev/null")
        install(gateway, release)
        follow_the_page(gateway, release)
        serve_metrics(gateway)
        look_at_an_upgrade(machines, release)

        # The other version does not accept the configuration: what runs goes on.
        gateway.run("sh", "-c", f"echo 'Nonsense: 1' >>{CONFIGURATION}")
        name = package(release, PACKAGES, VERSION).name
        said = gateway.run("sh", "-ec", f"{APT} install --allow-downgrades /root/{name} 2>&1", seconds=300)
        assert "proxsmtp-tp@gateway.service is not restarted, the old version still runs" in said
        assert machines.daemon_version() == NEXT_VERSION
        acceptance.accept_dialogue(machines.site, Setup("redirect", "client"), MAILS[0])
        gateway.run("sh", "-ec", f"{APT} purge proxsmtp-tp")
        assert gateway.run("dpkg-query", "-W", "-f", "${Status}", "proxsmtp") == "install ok installed"


def test_the_wheel_has_what_the_package_has() -> None:
    names = zipfile.ZipFile(wheel(VERSION)).namelist()
    for page in (TREE / "docs/man").iterdir():
        assert any(name.endswith(f"/share/man/man{page.suffix[1:]}/{page.name}") for name in names), page.name


@pytest.mark.parametrize("release", RELEASES, ids=lambda release: release.suite)
def test_a_dependency_comes_from_the_release_or_is_carried(release: Release) -> None:
    """Debian 13 alone has uvloop in a version that is new enough, and no release has the others."""
    path = package(release, PACKAGES)
    depends = dpkg_deb("-f", path, "Depends")
    assert depends.startswith(f"python3 (>= {release.python}~), python3 (<< ")
    carried = set(re.findall(r"(?m) \./usr/lib/proxsmtp-tp/site/(\w+)/$", dpkg_deb("-c", path)))
    assert carried >= {"proxsmtp_tp", "pyroute2", "iptc"}
    assert not re.search("python3-(pyroute2|iptables)", depends)
    from_release = release is DEBIAN_13
    assert ("python3-uvloop (>= 0.21~)" in depends) is from_release
    assert ("uvloop" not in carried) is from_release


def dpkg_deb(action: str, *arguments: Path | str) -> str:
    """What dpkg-deb(1) says."""
    return subprocess.run(
        ["dpkg-deb", action, *arguments], capture_output=True, text=True, check=True, timeout=60
    ).stdout


def test_a_package_has_no_file_of_another_suites_python() -> None:
    for release in RELEASES:
        said = dpkg_deb("-c", package(release, PACKAGES))
        compiled = [line.split()[-1] for line in said.splitlines() if line.endswith(".so")]
        wanted = f".cpython-{release.python.replace('.', '')}-"
        assert compiled
        assert all(wanted in name for name in compiled), compiled
