"""Everything that tests/deploy needs from package registries, fetched before the network is gone.

`python -m tests.deploy.prepare` makes, in a cache folder (XDG_CACHE_HOME, else ~/.cache):

base/       a Debian 12 root by mmdebstrap, with the packages that come onto the gateway downloaded, not installed
newer/      the same of Debian 13
ubuntu/     the same of Ubuntu 24.04
mail/       what lies over it where a Postfix runs (an overlay layer)
firewalls/  the same, where firewalld and ufw are installed, and not active
wheels/     this project's dependencies, for the Python of all roots
release/    this project, a next version, and one that does not come up: a wheel each, and of the first a compiled one
packages/   Debian packages of this project, one for each root, and of the next version for Debian 12 and 13

Roots are made once for each recipe; wheels of the project anew each time. The machine's own apt sources are taken as
they are. Needs root, for mmdebstrap and chroot. `--wheels` makes the wheels alone.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tools.compiled import WORK
from tools.deb import TREE, VERSION, build_packages
from tools.roots import DEBIAN_12, DEBIAN_13, UBUNTU_24_04, cache, download, make_layer, make_root, run, say

# What the role installs where it is missing; it must come, and go again. And the predecessor.
ROLE_PACKAGES = ("python3-venv", "nftables", "iptables", "logrotate")
PREDECESSOR = "proxsmtp"
# What Debian's package of this project takes from Debian 13.
NEWER_PACKAGES = ("python3-uvloop",)
# What reads files of the package: manual pages, and the exception from restarts after an upgrade of libraries.
READERS = ("man-db", "needrestart")
# It has no configuration yet: vagrant/mail-server makes that, and enables it.
MAIL = """
echo 'postfix postfix/main_mailer_type select No configuration' | debconf-set-selections
apt-get install -q -y --no-install-recommends postfix
apt-get clean
systemctl disable postfix
"""
# Not `apt-get clean`: the root's cache lies below.
FIREWALLS = """
apt-get install -q -y --no-install-recommends firewalld ufw nftables
systemctl disable firewalld ufw
"""
# Of pyproject.toml, for the role on Debian 12.
EXTRAS = "iptables,tls"
PACKAGES = cache() / "packages"
NEXT_VERSION = f"{VERSION}.post1"
# Installs, reads every configuration, and does not come up: what a rollback is for.
BROKEN_VERSION = f"{VERSION}.post2"


def main() -> int:
    """Make what is missing or old; say what takes time."""
    if "--wheels" not in sys.argv[1:]:
        make_roots()
    make_wheels(cache() / "wheels", cache() / "release")
    if "--wheels" not in sys.argv[1:]:
        build_packages([DEBIAN_12, DEBIAN_13, UBUNTU_24_04], PACKAGES)
        build_packages([DEBIAN_12, DEBIAN_13], PACKAGES, NEXT_VERSION)
    return 0


def make_roots() -> None:
    """Two at a time: a root takes one processor."""
    with ThreadPoolExecutor(2) as pool:
        wanted = {
            DEBIAN_12: (*ROLE_PACKAGES, PREDECESSOR),
            DEBIAN_13: (*ROLE_PACKAGES, *NEWER_PACKAGES),
            UBUNTU_24_04: (*ROLE_PACKAGES, *READERS),
        }
        list(pool.map(make_root, (DEBIAN_12, DEBIAN_13)))
        make_root(UBUNTU_24_04)  # with keys of Debian 13's archive
        list(pool.map(download, wanted, wanted.values()))
    make_layer(DEBIAN_12.root, cache() / "mail", MAIL)
    make_layer(DEBIAN_12.root, cache() / "firewalls", FIREWALLS)


def make_wheels(wheels: Path, release: Path) -> None:
    """The dependencies once, and this project in two versions."""
    if sys.version_info[:2] != (3, 11):
        raise SystemExit("the wheels are for Debian 12: run this with Python 3.11")
    release.mkdir(exist_ok=True)
    for old in release.glob("*.whl"):
        old.unlink()
    with tempfile.TemporaryDirectory(prefix="proxsmtp-wheel.") as work:
        tree = Path(work, "tree")
        shutil.copytree(
            TREE, tree, ignore=shutil.ignore_patterns(".*", "__pycache__", "tests", "bench", "build", "dist")
        )
        for version in (VERSION, NEXT_VERSION, BROKEN_VERSION):
            file = tree / "pyproject.toml"
            file.write_text(re.sub(r'(?m)^version = ".*"', f'version = "{version}"', file.read_text()))
            if version == BROKEN_VERSION:
                with (tree / "proxsmtp_tp/service/launch.py").open("a") as module:
                    module.write("\nraise RuntimeError('this version does not come up')\n")
            _pip("wheel", "--quiet", "--no-deps", "--wheel-dir", str(release), str(tree))
            if version == VERSION:
                # `make test-compiled` compiles nothing again: it has the same folder for what was compiled.
                given = ("HATCH_BUILD_HOOK_ENABLE_CUSTOM=true", f"PROXSMTP_TP_WORK={WORK}")
                compiled = ("env", *given, sys.executable, "-m", "pip")
                run(*compiled, "wheel", "--quiet", "--no-deps", "--wheel-dir", str(release), str(tree))
    depends = re.search(r"(?ms)^dependencies = \[.*(?=^\[dependency-groups\])", (TREE / "pyproject.toml").read_text())
    assert depends is not None
    others = [release.python for release in (DEBIAN_13, UBUNTU_24_04)]
    known = hashlib.sha256(f"{depends[0]}{others}{EXTRAS}".encode()).hexdigest()
    if not (wheels / known).exists():
        say("fetching the wheels of the dependencies")
        shutil.rmtree(wheels, ignore_errors=True)
        first = release / f"proxsmtp_tp-{VERSION}-py3-none-any.whl"
        _pip("wheel", "--quiet", "--wheel-dir", str(wheels), f"{first}[{EXTRAS}]")
        for python in others:
            binary = ("--python-version", python, "--only-binary=:all:")
            _pip("download", "--quiet", *binary, "--dest", str(wheels), str(first))
        (wheels / first.name).unlink()
        (wheels / known).touch()


def _pip(*arguments: str) -> None:
    run(sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments)


if __name__ == "__main__":
    sys.exit(main())
