"""Files of certificates and keys (PEM): who may read a key, our two CAs, and own certificates.

A key of a CA may be read by its owner only. A daemon that is started as root makes its CAs as root, before it becomes
its user: no worker and no filter can read their keys. A unit that runs as one user from its start gets the keys, opened
by root, from systemd (`service.lending`). The key of an own certificate is in every worker; its file may also be read
by the group of the daemon's user, so that a reload can read it again.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from proxsmtp_tp.certificates.libraries import load
from proxsmtp_tp.certificates.material import CertificateError, Material
from proxsmtp_tp.certificates.pem import certificates_of, end_of, public_octets
from proxsmtp_tp.net.tls_certificates import OwnCertificate

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Collection, Iterator, Mapping

    from proxsmtp_tp.config.settings import Settings
    from proxsmtp_tp.config.tls_files import CertificateLine

FOLDER: Final = "tls"
"""In the state directory, for the CAs that we make."""
NOT_LENT: Final[Mapping[bool, int]] = {}
FILE_MAX: Final = 1 << 20
"""Octets: a chain of certificates has some thousand."""


class KeyFileError(Exception):
    """A file cannot be used. The text says what to do."""


class NotReadableError(KeyFileError):
    """The file is not there, or this user may not read it."""


class MissingFileError(NotReadableError):
    """The file is not there."""


@dataclass(frozen=True, slots=True)
class CaFiles:
    """The files of a CA. `ours`: we make it where it is missing. `trusted`: clients trust it."""

    certificate: Path
    key: Path
    ours: bool
    trusted: bool


def ca_files(settings: Settings, kept: Path) -> tuple[CaFiles, CaFiles]:
    """The CA that clients trust, and the untrusted one. `kept` is the state directory."""
    found = []
    for given, trusted in ((settings.tls_ca, True), (settings.tls_untrusted_ca, False)):
        if given is not None:
            found.append(CaFiles(Path(given.certificate), Path(given.key), False, trusted))
            continue
        name = "ca" if trusted else "untrusted-ca"
        found.append(CaFiles(kept / FOLDER / f"{name}.pem", kept / FOLDER / f"{name}.key", True, trusted))
    return found[0], found[1]


def open_ca(files: CaFiles, owners: Collection[int] = ()) -> tuple[bytes, int]:
    """The certificate of a CA, and a descriptor of its key. Raises KeyFileError.

    Of a CA that we have made, both are in a folder of our own, and no link is followed: a filter that puts a folder of
    its own in its place must not exchange the two CAs. A command of root names in `owners` the user that a daemon under
    systemd has from its start: the folder and the keys are this user's.
    """
    with _folder_of(files, owners) as folder:
        return read_certificates(files.certificate, folder), open_key(files.key, folder=folder, owners=owners)


def take_ca(files: CaFiles, lent: Mapping[bool, int]) -> tuple[bytes, int]:
    """As `open_ca`, for a daemon that may have been given the keys of CAs; `lent`: by whether clients trust the CA."""
    if (key := lent.get(files.trusted)) is not None:
        return read_ca(files, {0}), os.dup(key)
    try:
        return open_ca(files)
    except NotReadableError as error:
        if os.geteuid() and files.key.exists() and files.key.stat().st_uid == 0:
            raise KeyFileError(f"{error}: it belongs to root: start the daemon as root, or by its unit") from None
        raise


def read_ca(files: CaFiles, owners: Collection[int] = ()) -> bytes:
    """The certificate of a CA, without its key; else as `open_ca`. Raises KeyFileError."""
    with _folder_of(files, owners) as folder:
        return read_certificates(files.certificate, folder)


@contextmanager
def _folder_of(files: CaFiles, owners: Collection[int]) -> Iterator[int | None]:
    """The folder of a CA that we have made, opened; None for files of the operator's, whose links are followed."""
    if not files.ours:
        yield None
        return
    try:
        folder = _opened_own(files.key.parent, owners)
    except OSError as error:
        raise NotReadableError(f"{files.key.parent}: {error.strerror}") from None
    try:
        yield folder
    finally:
        os.close(folder)


def _open(path: Path, folder: int | None) -> int:
    """`folder`: a descriptor of the folder in which the file must be; the file must not be a link."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
    if folder is None:
        return os.open(path, flags)
    return os.open(path.name, flags | os.O_NOFOLLOW, dir_fd=folder)


def open_key(path: Path, groups: Collection[int] = (), folder: int | None = None, owners: Collection[int] = ()) -> int:
    """A descriptor of a key's file that only its owner may read, or a group in `groups`. Raises KeyFileError.

    For root, without `groups`, the owner is root or in `owners`.
    """
    try:
        opened = _open(path, folder)
    except OSError as error:
        raise _unreadable(path, error) from None
    try:
        found = os.fstat(opened)
        if not stat.S_ISREG(found.st_mode):
            raise KeyFileError(f"{path}: no file")
        group_reads = stat.S_IRGRP if found.st_gid in groups else 0
        if stat.S_IMODE(found.st_mode) & 0o077 & ~group_reads:
            raise KeyFileError(f"{path}: others may read this key: chmod 600 {path}")
        if os.geteuid() == 0 and not groups and found.st_uid not in {0, *owners}:
            raise KeyFileError(f"{path}: the key of a CA must belong to root: chown root {path}")
    except BaseException:
        os.close(opened)
        raise
    return opened


def read_all(descriptor: int) -> bytes:
    """The whole file, at most FILE_MAX octets."""
    return os.pread(descriptor, FILE_MAX, 0)


def read_certificates(path: Path, folder: int | None = None) -> bytes:
    """Raises KeyFileError."""
    try:
        with open(_open(path, folder), "rb") as file:
            return file.read(FILE_MAX)
    except OSError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: OSError) -> NotReadableError:
    missing = error.errno in {errno.ENOENT, errno.ENOTDIR}
    return (MissingFileError if missing else NotReadableError)(f"{path}: {error.strerror}")


def read_own(line: CertificateLine, groups: Collection[int], now: dt.datetime) -> OwnCertificate:
    """An own certificate, checked: the key is that of the certificate, which is valid now. Raises KeyFileError."""
    certificate, key = Path(line.files.certificate), Path(line.files.key)
    descriptor = open_key(key, groups)
    try:
        key_pem = read_all(descriptor)
    finally:
        os.close(descriptor)
    chain = read_certificates(certificate)
    try:
        leaf = certificates_of(chain, str(certificate))[0]
        if public_octets(_loaded(key_pem, key).public_key()) != public_octets(leaf.public_key()):
            raise KeyFileError(f"{key}: this is not the key of {certificate}")
    except CertificateError as error:
        raise KeyFileError(str(error)) from None
    ends = end_of(leaf)
    if ends <= now:
        raise KeyFileError(f"{certificate}: it has expired on {ends:%Y-%m-%d}: renew it")
    return OwnCertificate(Material(chain, key_pem, ends.timestamp()), line.servers)


def _loaded(pem: bytes, path: Path) -> Any:
    forms = load("cryptography.hazmat.primitives.serialization", "TlsCertificate")
    try:
        return forms.load_pem_private_key(pem, password=None)
    except (TypeError, ValueError) as error:
        raise KeyFileError(f"{path}: no key without a passphrase can be read from it: {error}") from None


def open_own_folder(path: Path) -> int:
    """A descriptor of a folder, made if it is missing, in which no other user can write. Raises KeyFileError, OSError.

    The state directory belongs to the daemon's user: a filter could put a link of this name there for root to follow.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(FileExistsError):
        path.mkdir(mode=0o755)
    opened = _opened_own(path)
    os.fchmod(opened, 0o755)  # whatever the umask is: all may read the certificates
    return opened


def _opened_own(path: Path, owners: Collection[int] = ()) -> int:
    opened = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    if (owner := os.fstat(opened).st_uid) not in {os.geteuid(), *owners}:
        os.close(opened)
        text = "start the daemon as root, or by its unit" if owner == 0 else "remove it, and the daemon makes it again"
        raise KeyFileError(f"{path}: it belongs to user {owner}: {text}")
    return opened


def write_new(name: str, data: bytes, mode: int, folder: int) -> None:
    """Make a file in one step, in an open folder; an older one is replaced. Raises OSError."""
    new = f"{name}.new"
    with suppress(FileNotFoundError):
        os.unlink(new, dir_fd=folder)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(new, flags, mode, dir_fd=folder)
    try:
        os.fchmod(descriptor, mode)  # whatever the umask is
        with open(descriptor, "wb", closefd=False) as file:
            file.write(data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.rename(new, name, src_dir_fd=folder, dst_dir_fd=folder)
