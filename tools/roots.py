"""Debian and Ubuntu roots by mmdebstrap(1), in a cache folder (XDG_CACHE_HOME, else ~/.cache), and layers over them.

A root is made once for each recipe. The machine's own apt sources are used, with the names of the suites replaced.
Ubuntu's archive is UBUNTU_ARCHIVE (an URI); without it, it is looked for beside Debian's, as many mirrors have it. Its
keys come from Debian's package ubuntu-keyring. Needs root, for mmdebstrap, mounts and chroot.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

BASE_PACKAGES = (
    "apt", "systemd", "systemd-sysv", "dbus", "python3", "python3-apt", "iproute2", "procps", "kmod", "ca-certificates",
    "openssh-server",
)  # fmt: skip
DEBIAN_SUITES = "bookworm|trixie"
# mmdebstrap takes half a minute on an idle machine, and several times that on a busy one.
_ANSWER_SECONDS = 1200
_ENTER = """
[ -z "$3" ] || mount -t overlay overlay -o "$3" "$1"
touch "$1/etc/resolv.conf"
mount --bind /etc/resolv.conf "$1/etc/resolv.conf"
mount -t proc proc "$1/proc"
exec chroot "$1" sh -ec "$2"
"""
_QUIET = {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}


@dataclass(frozen=True, slots=True)
class Release:
    """A release of a distribution. `python`: the version of its python3. `folder`: the name of its root."""

    title: str
    suite: str
    python: str
    folder: str

    @property
    def root(self) -> Path:
        """Its root in the cache."""
        return cache() / self.folder


DEBIAN_12 = Release("Debian 12", "bookworm", "3.11", "base")
DEBIAN_13 = Release("Debian 13", "trixie", "3.13", "newer")
UBUNTU_24_04 = Release("Ubuntu 24.04", "noble", "3.12", "ubuntu")
RELEASES = (DEBIAN_12, DEBIAN_13, UBUNTU_24_04)
UBUNTU_ADVICE = "If Ubuntu's archive is somewhere else, name its URI in UBUNTU_ARCHIVE.\n"


def cache() -> Path:
    """The folder of all this."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base, "proxsmtp-tp", "deploy")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def up_to_date(path: Path, recipe: object) -> bool:
    """Whether `path` was made by this recipe; if not, it is deleted. Call `made` when it is complete."""
    stamp = _stamp(path)
    if path.exists() and stamp.exists() and stamp.read_text() == repr(recipe):
        return True
    stamp.unlink(missing_ok=True)
    shutil.rmtree(path, ignore_errors=True)
    return False


def made(path: Path, recipe: object) -> None:
    """Record that `path` is complete."""
    _stamp(path).write_text(repr(recipe))


def make_root(release: Release) -> None:
    """The root of a release."""
    recipe = (release.suite, BASE_PACKAGES)
    root = release.root
    if up_to_date(root, recipe):
        return
    say(f"making a root of {release.title} with mmdebstrap")
    with tempfile.TemporaryDirectory(prefix="proxsmtp-apt.") as work:
        Path(work).chmod(0o755)  # apt reads keys as a user of its own
        include = f"--include={','.join(BASE_PACKAGES)}"
        sources = _ubuntu_sources(Path(work)) if release is UBUNTU_24_04 else _debian_sources(release, Path(work))
        make = ("mmdebstrap", "--quiet", "--variant=minbase", include, *sources)
        run(*make, advice=UBUNTU_ADVICE if release is UBUNTU_24_04 else "")
    for name in ("hostname", "machine-id"):
        (root / "etc" / name).unlink(missing_ok=True)
    (root / "etc/machine-id").touch()
    inside(root, "apt-get update -q")
    made(root, recipe)


def download(release: Release, packages: tuple[str, ...]) -> None:
    """These packages wait in the cache of the root, with all that they need, and are not installed."""
    folder = release.root / "var/cache/proxsmtp-packages"
    if not up_to_date(folder, packages):
        get = "apt-get install -q -y --no-install-recommends --download-only"
        inside(release.root, f"apt-get update -q; {get} {' '.join(packages)}")
        folder.mkdir()
        made(folder, packages)


def make_layer(base: Path, layer: Path, script: str) -> None:
    """What a script changes in the root `base`, as an overlay layer."""
    recipe = (base.name, _stamp(base).read_text(), script)
    if up_to_date(layer, recipe):
        return
    layer.mkdir()
    with tempfile.TemporaryDirectory(dir=layer.parent) as work:
        for part in ("work", "root"):
            Path(work, part).mkdir()
        inside(Path(work, "root"), script, f"lowerdir={base},upperdir={layer},workdir={work}/work")
    made(layer, recipe)


def inside(root: Path, script: str, overlay: str = "") -> str:
    """Run a script in a root that sees the machine's name servers meanwhile; what it writes to standard output.

    `overlay`: mount options, or none.
    """
    return run("unshare", "--mount", "sh", "-ec", _ENTER, "enter", str(root), script, overlay)


def run(*command: str, advice: str = "") -> str:
    """Run a command; returns its output. If it fails, this program ends with the command's words and the advice."""
    done = subprocess.run(
        command, env={**os.environ, **_QUIET}, capture_output=True, text=True, timeout=_ANSWER_SECONDS, check=False
    )
    if done.returncode != 0:
        said = (done.stdout + done.stderr)[-3000:]
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{said}{advice}")
    return done.stdout


def say(text: str) -> None:
    """A line about what takes time."""
    print(text, flush=True)


def _stamp(path: Path) -> Path:
    return path.with_name(f"{path.name}.recipe")


def _machines_sources() -> Iterable[tuple[str, str]]:
    """Name and text of each file of the machine's own sources that has a suite of Debian's in it."""
    folder = Path("/etc/apt")
    for path in [folder / "sources.list", *sorted((folder / "sources.list.d").glob("*"))]:
        if path.is_file() and path.suffix in {".list", ".sources"}:
            text = path.read_text()
            if re.search(rf"\b({DEBIAN_SUITES})\b", text):
                yield path.name, text


def _debian_sources(release: Release, work: Path) -> list[str]:
    """Arguments for mmdebstrap: suite, root, and files of sources."""
    written = []
    for name, text in _machines_sources():
        (work / name).write_text(re.sub(rf"\b({DEBIAN_SUITES})\b", release.suite, text))
        written.append(str(work / name))
    return [release.suite, str(release.root), *written]


def _ubuntu_sources(work: Path) -> list[str]:
    """The same for Ubuntu, with its keys."""
    archive = os.environ.get("UBUNTU_ARCHIVE", "")
    if not archive:
        found = (re.search(r"\bhttps?://\S+/debian(?=/?\s)", text) for _, text in _machines_sources())
        archive = next((match[0].removesuffix("debian") + "ubuntu" for match in found if match), "")
    if not archive:
        raise SystemExit("no Ubuntu archive is known: name it in UBUNTU_ARCHIVE")
    make_root(DEBIAN_13)
    inside(DEBIAN_13.root, "cd /tmp; apt-get update -q; apt-get download -q ubuntu-keyring")
    (package,) = (DEBIAN_13.root / "tmp").glob("ubuntu-keyring_*.deb")
    run("dpkg-deb", "-x", str(package), str(work / "keys"))
    package.unlink()
    suite = UBUNTU_24_04.suite
    lines = [f"deb {archive} {name} main universe\n" for name in (suite, f"{suite}-updates", f"{suite}-security")]
    (work / "ubuntu.list").write_text("".join(lines))
    keys = work / "keys/usr/share/keyrings/ubuntu-archive-keyring.gpg"
    return [f"--keyring={keys}", suite, str(UBUNTU_24_04.root), str(work / "ubuntu.list")]
