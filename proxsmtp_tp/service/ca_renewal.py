"""A new CA before the old one expires: made first, trusted by the clients next, used last.

`prepare_next` makes it beside the old one, which stays in use. Clients then get both certificates for their trust
stores. `use_next` puts it in place of the old one; the next start of the daemon reads it.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from proxsmtp_tp.service.key_files import KeyFileError, open_own_folder
from proxsmtp_tp.service.tls_keys import make_ca

if TYPE_CHECKING:
    from proxsmtp_tp.service.key_files import CaFiles


def next_of(files: CaFiles) -> CaFiles:
    """The files of the CA that is to follow this one of our own. They may not exist."""
    folder = files.certificate.parent
    return replace(files, certificate=folder / f"next-{files.certificate.name}", key=folder / f"next-{files.key.name}")


def prepare_next(files: CaFiles) -> CaFiles:
    """Make the CA that is to follow. Raises KeyFileError, OSError."""
    folder = _open(files)
    os.close(folder)
    made = next_of(files)
    if made.certificate.exists():
        raise KeyFileError(f"{made.certificate} is there already: proxsmtp-tp tls-ca renew --use puts it in use")
    make_ca(made)
    return made


def use_next(trusted: CaFiles, untrusted: CaFiles) -> None:
    """Put the CA that was made in place of the trusted one, and make the other one anew: nobody has to know it.

    Again after a crash it goes on. Raises KeyFileError, OSError.
    """
    folder = _open(trusted)
    try:
        following = next_of(trusted)
        if not following.certificate.exists():
            raise KeyFileError(f"there is no {following.certificate}: proxsmtp-tp tls-ca renew makes it")
        with suppress(FileNotFoundError):  # a crash came between the two
            os.rename(following.key.name, trusted.key.name, src_dir_fd=folder, dst_dir_fd=folder)
        os.rename(following.certificate.name, trusted.certificate.name, src_dir_fd=folder, dst_dir_fd=folder)
        os.fsync(folder)
    finally:
        os.close(folder)
    if untrusted.ours:
        make_ca(untrusted)


def _open(files: CaFiles) -> int:
    """The folder of the CA. Raises KeyFileError: it is not ours to change."""
    if not files.ours:
        raise KeyFileError(f"{files.certificate} is from TlsCa: renew it where it was made, and restart the daemon")
    folder = files.certificate.parent
    try:
        owner = folder.stat(follow_symlinks=False).st_uid
    except OSError as error:
        raise KeyFileError(f"{folder}: {error.strerror}: there is no CA to renew") from None
    if owner != os.geteuid():
        raise KeyFileError(f"{folder}: it belongs to user {owner}: type this as this user")
    return open_own_folder(folder)
