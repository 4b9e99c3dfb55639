"""`make compiled`: a copy of the tree in build/compiled, with the core compiled, and an environment in it.

    python -m tools.compiled

Run tests and benches there: `cd build/compiled && .venv/bin/python -m pytest tests/unit/session`. The copy is brought
up to date by the same command; what has not changed is not compiled again. The tree itself stays as it is.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

from tools.compile_core import compile_core

TREE = Path(__file__).resolve().parents[1]
COPY = TREE / "build/compiled"
WORK = TREE / "build/mypyc"
SCRIPTS = ("proxsmtp-tp", "proxsmtpd")


def main() -> None:
    """Copy, compile, make the environment."""
    update(TREE, COPY)
    made = {path.relative_to(COPY) for path in compile_core(COPY, COPY, WORK)}
    for old in {path.relative_to(COPY) for path in COPY.rglob("*.so") if ".venv" not in path.parts} - made:
        (COPY / old).unlink()
    make_environment(COPY / ".venv")


def update(tree: Path, copy: Path) -> None:
    """Make `copy` the files of the tree that git knows or would add. Files that are the same are left alone."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=tree, check=True, stdout=subprocess.PIPE, text=True,
    ).stdout.split("\0")  # fmt: skip
    names = {name for name in listed if name and (tree / name).is_file()}
    for name in names:
        source, target = tree / name, copy / name
        if not target.exists() or target.read_bytes() != source.read_bytes():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    for path in copy.rglob("*.py"):
        if ".venv" not in path.parts and str(path.relative_to(copy)) not in names:
            path.unlink()


def make_environment(place: Path) -> None:
    """An environment that has the packages of this one, but proxsmtp_tp from the copy."""
    python = place / "bin/python"
    if not python.exists():
        venv.create(place, symlinks=True)
    ours = Path(sysconfig.get_path("purelib"))
    theirs = place / ours.relative_to(sys.prefix)
    (theirs / "compiled.pth").write_text(
        f"{place.parent}\n{ours}\n"
    )  # no .pth file in `ours` is read: that of the tree
    for name in SCRIPTS:
        text = (Path(sys.prefix) / "bin" / name).read_text()
        script = place / "bin" / name
        script.write_text(f"#!{python}\n" + text.split("\n", 1)[1])
        script.chmod(0o755)


if __name__ == "__main__":
    main()
