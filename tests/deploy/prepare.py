"""Everything that tests/deploy needs from package registries, fetched before the network is gone.

`python -m tests.deploy.prepare` makes, in a cache folder (XDG_CACHE_HOME, else ~/.cache):

base/       a Debian 12 root by mmdebstrap, with the packages that come onto the gateway downloaded, not installed
newer/      the same of Debian 13
mail/       what lies over it where a Postfix runs (an overlay layer)
wheels/     this project's dependencies, for the Python of both roots
release/    this project, a next version of it, and one that does not come up: one wheel each

Roots are made once for each recipe; wheels of the project anew each time. The machine's own apt sources are taken as
they are. Needs root, for mmdebstrap and chroot. `--wheels` makes the wheels alone.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

TREE = Path(__file__).resolve().parents[2]
SUITE, NEWER_SUITE = "bookworm", "trixie"
NEWER_PYTHON = "3.13"
BASE_PACKAGES = (
    "systemd", "systemd-sysv", "dbus", "python3", "python3-apt", "iproute2", "procps", "kmod", "ca-certificates",
    "openssh-server",
)  # fmt: skip
# What the role installs where it is missing; it must come, and go again. And the predecessor.
ROLE_PACKAGES = ("python3-venv", "nftables", "iptables", "logrotate")
PREDECESSOR = "proxsmtp"
MAIL_PACKAGES = ("postfix",)
VERSION = str(tomllib.loads((TREE / "pyproject.toml").read_text())["project"]["version"])
NEXT_VERSION = f"{VERSION}.post1"
# Installs, reads every configuration, and does not come up: what a rollback is for.
BROKEN_VERSION = f"{VERSION}.post2"
# mmdebstrap takes half a minute on an idle machine, and several times that on a busy one.
_ANSWER_SECONDS = 1200
_ENTER = """
[ -z "$3" ] || mount -t overlay overlay -o "$3" "$1"
touch "$1/etc/resolv.conf"
mount --bind /etc/resolv.conf "$1/etc/resolv.conf"
exec chroot "$1" sh -ec "$2"
"""
_QUIET = {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}


def cache() -> Path:
    """The folder of all this."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base, "proxsmtp-tp", "deploy")


def main() -> int:
    """Make what is missing or old; say what takes time."""
    folder = cache()
    folder.mkdir(parents=True, exist_ok=True)
    if "--wheels" not in sys.argv[1:]:
        make_roots(folder)
    make_wheels(folder / "wheels", folder / "release")
    return 0


def make_roots(folder: Path) -> None:
    """Those of another recipe are made anew."""
    recipe = repr((SUITE, NEWER_SUITE, BASE_PACKAGES, ROLE_PACKAGES, PREDECESSOR, MAIL_PACKAGES))
    stamp = folder / "recipe"
    if not stamp.exists() or stamp.read_text() != recipe:
        stamp.unlink(missing_ok=True)
        make_base(folder / "base", SUITE, (*ROLE_PACKAGES, PREDECESSOR))
        make_base(folder / "newer", NEWER_SUITE, ROLE_PACKAGES)
        make_mail(folder / "base", folder / "mail")
        stamp.write_text(recipe)


def make_base(root: Path, suite: str, packages: tuple[str, ...]) -> None:
    """A Debian root, with these packages waiting in its cache."""
    _say(f"making a Debian {suite} root with mmdebstrap")
    shutil.rmtree(root, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="proxsmtp-apt.") as work:
        sources = [str(path) for path in _apt_sources(suite, Path(work))]
        include = f"--include={','.join(BASE_PACKAGES)}"
        _run("mmdebstrap", "--quiet", "--variant=minbase", include, suite, str(root), *sources)
    for name in ("hostname", "machine-id"):
        (root / "etc" / name).unlink(missing_ok=True)
    (root / "etc/machine-id").touch()
    download = "apt-get install -q -y --no-install-recommends --download-only"
    _inside(root, f"apt-get update -q; {download} {' '.join(packages)}")


def make_mail(base: Path, layer: Path) -> None:
    """The layer with Postfix, configured by nobody yet."""
    _say("installing Postfix in a layer of its own")
    shutil.rmtree(layer, ignore_errors=True)
    layer.mkdir()
    with tempfile.TemporaryDirectory(dir=layer.parent) as work:
        for part in ("work", "root"):
            Path(work, part).mkdir()
        install = f"apt-get install -q -y --no-install-recommends {' '.join(MAIL_PACKAGES)}; apt-get clean"
        # It has no configuration yet: vagrant/mail-server makes that, and enables it.
        install += "; systemctl disable postfix"
        _inside(
            Path(work, "root"),
            f"echo 'postfix postfix/main_mailer_type select No configuration' | debconf-set-selections; {install}",
            f"lowerdir={base},upperdir={layer},workdir={work}/work",
        )


def make_wheels(wheels: Path, release: Path) -> None:
    """The dependencies once, and this project in two versions."""
    if sys.version_info[:2] != (3, 11):
        raise SystemExit("the wheels are for Debian 12: run this with Python 3.11")
    release.mkdir(exist_ok=True)
    for old in release.glob("*.whl"):
        old.unlink()
    with tempfile.TemporaryDirectory(prefix="proxsmtp-wheel.") as work:
        tree = Path(work, "tree")
        shutil.copytree(TREE, tree, ignore=shutil.ignore_patterns(".*", "__pycache__", "tests", "bench"))
        for version in (VERSION, NEXT_VERSION, BROKEN_VERSION):
            file = tree / "pyproject.toml"
            file.write_text(re.sub(r'(?m)^version = ".*"', f'version = "{version}"', file.read_text()))
            if version == BROKEN_VERSION:
                with (tree / "proxsmtp_tp/service/launch.py").open("a") as module:
                    module.write("\nraise RuntimeError('this version does not come up')\n")
            _pip("wheel", "--quiet", "--no-deps", "--wheel-dir", str(release), str(tree))
    depends = re.search(r"(?ms)^dependencies = \[.*(?=^\[dependency-groups\])", (TREE / "pyproject.toml").read_text())
    assert depends is not None
    known = hashlib.sha256((depends[0] + NEWER_PYTHON).encode()).hexdigest()
    if not (wheels / known).exists():
        _say("fetching the wheels of the dependencies")
        shutil.rmtree(wheels, ignore_errors=True)
        first = min(release.glob("*.whl"))
        _pip("wheel", "--quiet", "--wheel-dir", str(wheels), f"{first}[iptables]")
        newer = ("--python-version", NEWER_PYTHON, "--only-binary=:all:")
        _pip("download", "--quiet", *newer, "--dest", str(wheels), str(first))
        (wheels / first.name).unlink()
        (wheels / known).touch()


def _apt_sources(suite: str, work: Path) -> list[Path]:
    """The machine's own sources of Debian packages, for another suite written anew into `work`."""
    folder = Path("/etc/apt")
    found = [folder / "sources.list", *sorted((folder / "sources.list.d").glob("*"))]
    kept = [path for path in found if path.is_file() and path.suffix in {".list", ".sources"}]
    own = re.compile(rf"\b({SUITE}|{NEWER_SUITE})\b")
    written = []
    for path in kept:
        if own.search(text := path.read_text()):
            written.append(work / path.name)
            written[-1].write_text(own.sub(suite, text))
    return written


def _inside(root: Path, script: str, overlay: str = "") -> None:
    """Run a script in a root that sees the machine's name servers meanwhile. `overlay`: mount options, or none."""
    _run("unshare", "--mount", "sh", "-ec", _ENTER, "enter", str(root), script, overlay)


def _pip(*arguments: str) -> None:
    _run(sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments)


def _run(*command: str) -> None:
    done = subprocess.run(
        command, env={**os.environ, **_QUIET}, capture_output=True, text=True, timeout=_ANSWER_SECONDS, check=False
    )
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{(done.stdout + done.stderr)[-3000:]}")


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
