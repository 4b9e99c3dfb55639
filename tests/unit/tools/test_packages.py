"""What the packages are made of, as far as it can be seen without building one (tests/deploy/test_package.py does)."""

from __future__ import annotations

import os
import re
import subprocess
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.cli.service_units import UNITS
from proxsmtp_tp.config.advice import advice
from proxsmtp_tp.config.directives.table import DIRECTIVES
from proxsmtp_tp.config.reader import parse_config
from tools import carried, deb, roots, sample_config
from tools.roots import DEBIAN_12, DEBIAN_13, UBUNTU_24_04

if TYPE_CHECKING:
    from pathlib import Path

ONLY_WITH = {
    "LockOn": ("ClientRejects",),
    "KeepRefused": ("Filter", "QuarantineDirectory"),
    "UpstreamTls": ("Tls",),
    "TlsWrapped": ("Tls",),
}
"""A directive that is wrong without others."""
IN_PLACE_OF = {"Filter": "FilterCommand"}
"""A directive that is wrong with another."""
WARNINGS = {"OutAddress": ["OutAddress: ignored, because TransparentProxy is set"]}


def compare(one: str, relation: str, other: str) -> bool:
    """As dpkg does."""
    return subprocess.run(["dpkg", "--compare-versions", one, relation, other], timeout=60, check=False).returncode == 0


def test_versions_of_packages_have_the_order_of_releases() -> None:
    order = [
        deb.debian_version(version, release)
        for version in ("2.1.0.dev1", "2.1.0rc1", "2.1.0", "2.1.0.post1", "2.1.1")
        for release in (DEBIAN_12, DEBIAN_13)
    ]
    assert order[4] == "2.1.0-1~deb12"
    assert all(compare(one, "lt", other) for one, other in pairwise(order)), order
    assert deb.debian_version("2.1.0", UBUNTU_24_04) == "2.1.0-1~ubuntu24.04"
    assert "2.1.0-1~deb12 (" not in deb.changelog("2.1.0", DEBIAN_12)
    assert deb.changelog("2.1.0", DEBIAN_12).startswith("proxsmtp-tp (2.1.0-1~deb12) bookworm;")


def test_the_date_of_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in a clone of another user, in a tree without commits, and without git."""
    monkeypatch.setattr(deb, "TREE", tmp_path)
    (tmp_path / "CHANGELOG.md").touch()
    os.utime(tmp_path / "CHANGELOG.md", (86400, 86400))
    assert deb._date() == "Fri, 02 Jan 1970 00:00:00 +0000"
    author = {
        "GIT_AUTHOR_NAME": "a",
        "GIT_AUTHOR_EMAIL": "a@a",
        "GIT_COMMITTER_NAME": "a",
        "GIT_COMMITTER_EMAIL": "a@a",
    }
    commit = "git init -q && git commit -q --allow-empty -m one"
    environment = {**os.environ, **author, "GIT_COMMITTER_DATE": "2026-01-02T03:04:05Z"}
    subprocess.run(["sh", "-ec", commit], cwd=tmp_path, timeout=60, check=True, env=environment)
    assert deb._date() == "Fri, 2 Jan 2026 03:04:05 +0000"
    if os.geteuid() == 0:
        subprocess.run(["chown", "-R", "nobody", tmp_path], timeout=60, check=True)
        assert deb._date() == "Fri, 2 Jan 2026 03:04:05 +0000"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert deb._date() == "Fri, 02 Jan 1970 00:00:00 +0000"


def test_every_unit_of_the_project_is_known() -> None:
    """Those that `install-service` writes; debian/rules takes all that are there."""
    assert sorted(UNITS) == sorted(path.name for path in (deb.TREE / "systemd").iterdir() if path.suffix != ".sysusers")


def test_a_dependency_comes_from_the_release_or_is_carried() -> None:
    def release(script: str) -> str:
        asked = [line.split()[1:] for line in script.splitlines() if line.startswith("look ")]
        assert asked == [["python3-first", "0.21~"], ["python3-iptables", "1.2~"]]
        return "yes\nno\n"

    needs = carried.sort_out(["First>=0.21", "python-iptables >= 1.2"], release)
    assert needs.depends == ["python3-first (>= 0.21~)"]
    assert needs.carried == ["python-iptables >= 1.2"]
    with pytest.raises(ValueError, match="only NAME>=VERSION"):
        carried.sort_out(["first[extra]>=1"], release)


def test_what_the_project_needs_can_be_compared() -> None:
    assert carried.sort_out(deb.requirements(), lambda _: "yes yes yes").carried == []


@pytest.mark.parametrize("release", [DEBIAN_12, UBUNTU_24_04], ids=lambda release: release.suite)
def test_where_there_is_no_archive_of_ubuntu_the_error_says_how_to_name_one(
    release: roots.Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "mmdebstrap"
    program.write_text("#!/bin/sh\necho E: 404 >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(roots, "_ubuntu_sources", lambda _: ["noble"])
    with pytest.raises(SystemExit, match="E: 404") as error:
        roots.make_root(release)
    assert ("UBUNTU_ARCHIVE" in str(error.value)) is (release is UBUNTU_24_04)


def test_the_sample_configuration_is_one() -> None:
    text = sample_config.text()
    found = parse_config(text.encode(), "/etc/proxsmtp-tp/gateway.conf")
    assert found.warnings == ()
    assert found.settings.rule_interface == ("eth1",)
    assert re.findall(r"(?m)^#?([A-Z]\w+): ", text) == [row.name for row in DIRECTIVES]
    assert advice(found.settings) == []


@pytest.mark.parametrize("line", re.findall(r"(?m)^#(\w+: .*)$", sample_config.text()))
def test_a_line_of_the_sample_configuration_can_be_used(line: str) -> None:
    text = sample_config.text()
    assert text.count(f"\n#{line}\n") == 1
    name = line.partition(":")[0]
    for used in (name, *ONLY_WITH.get(name, ())):
        text = re.sub(f"(?m)^#{used}: ", f"{used}: ", text)
        if used in IN_PLACE_OF:
            text = re.sub(f"(?m)^{IN_PLACE_OF[used]}: ", f"#{IN_PLACE_OF[used]}: ", text)
    found = parse_config(text.encode(), "/etc/proxsmtp-tp/gateway.conf")
    assert [warning.text for warning in found.warnings] == WARNINGS.get(name, [])


def test_the_defaults_in_the_sample_configuration_are_the_defaults() -> None:
    shown = {row.name for row in DIRECTIVES if sample_config.default(row)}
    lines = re.findall(r"(?m)^#(\w+: .*)$", sample_config.text())
    defaults = [line for line in lines if line.partition(":")[0] in shown]
    assert len(defaults) > 20
    with_them = parse_config(("\n".join(defaults) + "\nOutAddress: 127.0.0.1:25\n").encode(), "/etc/proxsmtp-tp/a.conf")
    without = parse_config(b"OutAddress: 127.0.0.1:25\n", "/etc/proxsmtp-tp/a.conf")
    for row in DIRECTIVES:
        if row.name in shown:
            assert getattr(with_them.settings, row.field) == getattr(without.settings, row.field), row.name


def test_the_man_pages_do_not_collide_with_those_of_1_10() -> None:
    rules = (deb.TREE / "debian/rules").read_text()
    for page in ("proxsmtpd.8", "proxsmtpd.conf.5"):
        assert f"/{page}tp\n" in rules
        assert not re.search(rf"/{re.escape(page)}\n", rules)


@pytest.mark.parametrize("script", sorted((deb.TREE / "debian").glob("proxsmtp-tp.*st*")), ids=lambda path: path.name)
def test_a_maintainer_script_is_shell(script: Path) -> None:
    subprocess.run(["dash", "-n", str(script)], timeout=60, check=True)
