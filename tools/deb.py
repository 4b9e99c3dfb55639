"""`make deb`: the project as a package for each release, built and checked in a root of that release.

    python -m tools.deb [--output DIR] [SUITE...]       (default: bookworm trixie, into dist/)

The version is that of pyproject.toml; what is appended says which release a package is for. A package has the program
in /usr/lib/proxsmtp-tp/site, and those of its dependencies that the release lacks (`carried`). pip puts them there when
the package is built; what must be compiled is compiled with the release's own Python. debian/ has the rest. lintian(1)
must find nothing but what debian/proxsmtp-tp.lintian-overrides explains. Needs root.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import TYPE_CHECKING

from tools import completion, sample_config
from tools.carried import Needs, sort_out
from tools.roots import RELEASES, Release, cache, inside, made, make_layer, make_root, run, say, up_to_date

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TREE = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((TREE / "pyproject.toml").read_text())["project"]
VERSION = str(PROJECT["version"])
NAME = "proxsmtp-tp"
DEFAULT_SUITES = ("bookworm", "trixie")
BUILD_PACKAGES = ("debhelper", "dpkg-dev", "gcc", "libc6-dev", "python3-dev", "python3-pip", "python3-setuptools",
    "python3-wheel", "lintian")  # fmt: skip
_LAYER = f"""
apt-get update -q
apt-get install -q -y --no-install-recommends {" ".join(BUILD_PACKAGES)}
apt-get clean
"""
_IGNORED = shutil.ignore_patterns(".*", "__pycache__", "tests", "bench", "dist", "build", "*.egg-info")
_COMPILED = ("python-iptables",)
"""Has no wheels for every Python: compiled with that of the release."""
_COMPILE = """
cd /build
eval "$(DEB_BUILD_MAINT_OPTIONS=hardening=+all dpkg-buildflags --export=sh)"
python3 -m pip wheel -q --no-index --no-deps --no-build-isolation -w wheels sources/* >&2
for wheel in wheels/*.whl; do python3 -m zipfile -e "$wheel" site; done
"""
_BUILD = """
python3 -c 'import sys; sys.exit("%d.%d" % sys.version_info[:2] != "{python}")'
cd /build/tree
# -d: build-essential would bring a compiler for C++.
dpkg-buildpackage -d -b -us -uc >/build/log 2>&1 || {{ cat /build/log; exit 1; }} >&2
"""
_CHECK = """
cd /build
lintian --allow-root --tag-display-limit 0 --display-info --fail-on error,warning,info ./*.changes >lint 2>&1 ||
    { cat lint; exit 1; } >&2
"""


def main(arguments: list[str] | None = None) -> int:
    """The program."""
    parser = argparse.ArgumentParser(prog="python -m tools.deb", description="Builds the packages.")
    suites = [release.suite for release in RELEASES]
    parser.add_argument("suites", nargs="*", metavar="SUITE", default=DEFAULT_SUITES, help=", ".join(suites))
    parser.add_argument("--output", type=Path, default=TREE / "dist")
    args = parser.parse_args(arguments)
    if unknown := set(args.suites) - set(suites):
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(suites)}")
    if os.geteuid() != 0:
        parser.error("it makes roots, with mounts and chroot: run it as root")
    releases = [release for release in RELEASES if release.suite in args.suites]
    for release in releases:
        make_root(release)
        shutil.rmtree(_carried(release), ignore_errors=True)  # a release has the newest versions
    for package in build_packages(releases, args.output):
        say(f"{package}")
    return 0


def build_packages(releases: list[Release], output: Path, version: str = VERSION) -> list[Path]:
    """One for each release, in `output`. Ends the program with the reason where one cannot be built."""
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="proxsmtp-wheel.") as folder, ThreadPoolExecutor(2) as pool:
        wheel = build_wheel(version, Path(folder))
        return list(pool.map(lambda release: build(release, output, version, wheel), releases))


def build(release: Release, output: Path, version: str, wheel: Path) -> Path:
    """The package of a release. It replaces earlier ones of the same version."""
    say(f"building {NAME} {version} for {release.title}")
    layer = cache() / f"build-{release.suite}"
    make_layer(release.root, layer, _LAYER)
    needs = sort_out(requirements(), lambda script: inside(release.root, script))
    make_carried(release, layer, needs)
    with _overlay(release, layer) as (work, enter):
        prepare_tree(work / "tree", release, needs, version, wheel)
        enter(_BUILD.format(python=release.python))
        if version == VERSION:  # other versions are for tests, which need a package that differs in nothing else
            enter(_CHECK)
        (found,) = work.glob("*.deb")
        for old in output.glob(f"{NAME}_{debian_version(version, release)}_*.deb"):
            old.unlink()
        return Path(shutil.copy(found, output))


def build_wheel(version: str, output: Path) -> Path:
    """The project as a wheel of this version."""
    with tempfile.TemporaryDirectory(prefix="proxsmtp-tree.") as folder:
        tree = Path(folder, "tree")
        shutil.copytree(TREE, tree, ignore=_IGNORED)
        pyproject = tree / "pyproject.toml"
        pyproject.write_text(re.sub(r'(?m)^version = ".*"', f'version = "{version}"', pyproject.read_text()))
        _pip("wheel", "--no-deps", "--wheel-dir", str(output), str(tree))
    (found,) = output.glob("proxsmtp_tp-*.whl")
    return found


def make_carried(release: Release, layer: Path, needs: Needs) -> None:
    """The dependencies that a package carries, in a folder of the cache. Made once for what the project needs."""
    folder, recipe = _carried(release), (needs.carried, release.python)
    if up_to_date(folder, recipe):
        return
    compiled = [need for need in needs.carried if need.startswith(_COMPILED)]
    wheels = [need for need in needs.carried if need not in compiled]
    with _overlay(release, layer) as (work, enter):
        (work / "site").mkdir()
        if wheels:
            binary = ("--python-version", release.python, "--only-binary=:all:")
            _pip("install", "--no-compile", *binary, "--target", str(work / "site"), *wheels)
        if compiled:
            _pip("download", "--no-deps", "--no-binary=:all:", "--dest", str(work / "sources"), *compiled)
            enter(_COMPILE)
        shutil.copytree(work / "site", folder)
    made(folder, recipe)


def _carried(release: Release) -> Path:
    return cache() / f"carried-{release.suite}"


@contextmanager
def _overlay(release: Release, layer: Path) -> Iterator[tuple[Path, Callable[[str], str]]]:
    """The folder /build of a root with the layer over it, and how to run a script there. It is gone afterwards."""
    with tempfile.TemporaryDirectory(dir=cache(), prefix="package.") as name:
        work = Path(name)
        for part in ("upper/build", "work", "root"):
            (work / part).mkdir(parents=True)
        options = f"lowerdir={layer}:{release.root},upperdir={work}/upper,workdir={work}/work"

        def enter(script: str) -> str:
            shutil.rmtree(work / "work")  # of an earlier mount; the kernel makes it again
            (work / "work").mkdir()
            return inside(work / "root", script, options)

        yield work / "upper/build", enter


def package(release: Release, output: Path, version: str = VERSION) -> Path:
    """Where `build` has put a package. Raises ValueError if it has not."""
    (found,) = output.glob(f"{NAME}_{debian_version(version, release)}_*.deb")
    return found


def requirements() -> list[str]:
    """What the program needs, and what it needs for RuleMethod iptables."""
    return [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["iptables"]]


def debian_version(version: str, release: Release) -> str:
    """2.1.0rc1 on Debian 12 is 2.1.0~rc1-1~deb12: below 2.1.0, and below that of Debian 13."""
    distribution, number = release.title.split()
    short = {"Debian": "deb"}.get(distribution, distribution.lower())
    # PEP 440: .dev, then a, b, rc, then the release.
    sortable = re.sub(r"(?=(a|b|rc)[0-9])", "~", version.replace(".dev", "~~dev"))
    return f"{sortable}-1~{short}{number}"


def prepare_tree(tree: Path, release: Release, needs: Needs, version: str, wheel: Path) -> None:
    """The project's files with debian/ complete: the program, its dependencies, and what is made from the program."""
    shutil.copytree(TREE, tree, ignore=_IGNORED)
    debian = tree / "debian"
    shutil.copytree(_carried(release), debian / "site")
    _pip("install", "--no-compile", "--no-deps", "--no-index", "--target", str(debian / "site"), str(wheel))
    (debian / "completion.bash").write_text(completion.bash())
    (debian / "completion.zsh").write_text(completion.zsh())
    (debian / "gateway.conf").write_text(sample_config.text())
    (debian / "changelog").write_text(changelog(version, release))
    major, minor = release.python.split(".")
    python = f"python3 (>= {release.python}~), python3 (<< {major}.{int(minor) + 1}~)"
    (debian / "needs.substvars").write_text(f"python:Depends={', '.join([python, *needs.depends])}\n")


def changelog(version: str, release: Release) -> str:
    """For dpkg, with the date of the last commit; CHANGELOG.md says what has changed."""
    maintainer = re.search(r"(?m)^Maintainer: (.*)$", (TREE / "debian/control").read_text())
    assert maintainer is not None
    head = f"{NAME} ({debian_version(version, release)}) {release.suite}; urgency=medium"
    return (
        f"{head}\n\n  * Version {version}: see /usr/share/doc/{NAME}/changelog.gz.\n\n -- {maintainer[1]}  {_date()}\n"
    )


def _date() -> str:
    """Of the last commit, as in a Date header; of CHANGELOG.md in a tree without commits."""
    # The clone may belong to another user than root.
    command = ["git", "-c", f"safe.directory={TREE}", "log", "-1", "--format=%cD"]
    with suppress(FileNotFoundError):
        done = subprocess.run(command, cwd=TREE, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode == 0:
            return done.stdout.strip()
    return format_datetime(datetime.fromtimestamp(int((TREE / "CHANGELOG.md").stat().st_mtime), UTC))


def _pip(*arguments: str) -> None:
    run(sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", *arguments)


if __name__ == "__main__":
    sys.exit(main())
