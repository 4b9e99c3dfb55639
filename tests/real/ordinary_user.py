"""Commands as an ordinary user, when the tests run as root.

The interpreter and the project may lie where only root can look (a clone in /root). In a mount namespace of its own,
each closed directory on the way is covered by an open one that holds only what is needed: nothing outside changes.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

USER = 65534
"""Nobody: a user without any right, present everywhere."""


def as_ordinary_user(command: list[str], workspace: Path) -> list[str]:
    """What to execute. `workspace` is an empty directory, for one use."""
    if os.geteuid() != 0:
        return command
    project = Path(__file__).resolve().parents[2]
    needed = {Path(place).resolve() for place in (sys.base_prefix, sys.prefix, project)}
    closed: dict[Path, list[Path]] = {}
    for place in sorted(needed):
        for ancestor in reversed(place.parents):
            if not ancestor.stat().st_mode & 0o001:
                closed.setdefault(ancestor, []).append(place)
                break
    lines = ["set -eu"]
    for cover, places in closed.items():
        lines.append(f"mount -n --bind {_quoted(cover)} {_quoted(workspace)}")
        lines.append(f"mount -n -t tmpfs -o mode=755 tmpfs {_quoted(cover)}")
        for place in places:
            lines.append(f"mkdir -p {_quoted(place)}")
            lines.append(f"mount -n --rbind {_quoted(workspace / place.relative_to(cover))} {_quoted(place)}")
        lines.append(f"umount -n -l {_quoted(workspace)}")
    lines.append(f'exec setpriv --reuid={USER} --regid={USER} --clear-groups -- "$@"')
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", "\n".join(lines), "sh", *command]


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
