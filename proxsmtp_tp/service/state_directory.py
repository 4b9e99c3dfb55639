"""The directory for what an instance keeps over restarts, and how a file in it is replaced.

systemd makes it (systemd.exec(5), StateDirectory). A daemon that is started in another way uses
/var/lib/proxsmtp-tp/NAME as root, and ~/.local/state/proxsmtp-tp/NAME as a user. As root, `prepare` gives it to the
user that the daemon becomes.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pwd

_FOLDER = "proxsmtp-tp"
_MODE = 0o700


def state_directory(instance: str) -> Path:
    """The directory; it may not exist yet."""
    if given := os.environ.get("STATE_DIRECTORY", "").partition(":")[0]:
        return Path(given)
    if os.geteuid() == 0:
        return Path("/var/lib", _FOLDER, instance)
    base = os.environ.get("XDG_STATE_HOME") or Path(os.environ.get("HOME", "/"), ".local", "state")
    return Path(base, _FOLDER, instance)


def pseudonym_keys(instance: str) -> Path:
    """The file with the keys for LogAddresses keyed."""
    return state_directory(instance) / "pseudonym.key"


def prepare(directory: Path, user: pwd.struct_passwd) -> None:
    """As root: make the directory, which the user owns. Raises OSError."""
    directory.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    with suppress(FileExistsError):
        directory.mkdir(mode=_MODE)
    opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fchown(opened, user.pw_uid, user.pw_gid)
    finally:
        os.close(opened)


def replace_file(path: Path, data: bytes) -> None:
    """Replace a file in one step; it is on the disk when this returns. Raises OSError; then the old file stays."""
    path.parent.mkdir(mode=_MODE, parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    temporary.rename(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
