"""What TLS with clients needs, in the master: own certificates, our CAs, the minting process.

`TlsKeys` is made as root, before privileges are dropped: it imports libraries, opens keys, makes missing CAs. A reload
reads own certificates again, as the daemon's user. What it cannot read then stays as it is, with a warning.
"""

from __future__ import annotations

import datetime as dt
import logging
import os
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from proxsmtp_tp.certificates import authority
from proxsmtp_tp.certificates.libraries import MissingLibraryError, load
from proxsmtp_tp.certificates.material import CertificateError
from proxsmtp_tp.certificates.path_check import Anchors, PathCheckError
from proxsmtp_tp.certificates.pem import certificates_of, end_of
from proxsmtp_tp.net.tls_certificates import WorkerKeys
from proxsmtp_tp.net.tls_resolver import PURPOSE as RESOLVER_PURPOSE
from proxsmtp_tp.service.key_files import (
    FOLDER,
    NOT_LENT,
    CaFiles,
    KeyFileError,
    MissingFileError,
    NotReadableError,
    ca_files,
    open_key,
    open_own_folder,
    read_all,
    read_certificates,
    read_own,
    take_ca,
    write_new,
)
from proxsmtp_tp.service.logging import NOTICE
from proxsmtp_tp.service.minting import Minting

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from proxsmtp_tp.config.settings import Settings
    from proxsmtp_tp.config.tls_files import CertificateLine
    from proxsmtp_tp.net.tls_certificates import OwnCertificate

log = logging.getLogger(__name__)

DAY: Final = 86_400.0
OWN_SOON: Final = 21 * DAY
"""Seconds before the end of an own certificate: an ACME client renews 30 days before it, so its renewal has failed."""
CA_SOON: Final = 365 * DAY
"""Seconds before the end of a CA: its successor must reach every client."""
_CRYPTOGRAPHY: Final = ("x509", *(f"hazmat.primitives.{name}" for name in ("asymmetric.ec", "hashes", "serialization")))


def needs_ca(settings: Settings) -> bool:
    """Whether some server has no own certificate."""
    return settings.terminates_tls and not any(not line.servers for line in settings.tls_certificate)


def load_libraries(settings: Settings) -> None:
    """Import what these settings need: later their files may not be readable.

    Raises MissingLibraryError; PathCheckError if UpstreamCaFile, or OpenSSL's library, cannot be used.
    """
    if settings.terminates_tls:
        for module in _CRYPTOGRAPHY:
            load(f"cryptography.{module}", "Tls: terminate")
    if settings.tls:
        Anchors(Path(settings.upstream_ca_file) if settings.upstream_ca_file else None)
    if settings.needs_resolver:
        for module in ("message", "asyncquery", "flags", "rdatatype", "rcode", "exception", "rdtypes.ANY.TLSA"):
            load(f"dns.{module}", RESOLVER_PURPOSE)


class TlsKeys:
    """One in the daemon. `kept` is the state directory, `groups` those of the daemon's user; `lent`: see
    `key_files.take_ca`. Raises KeyFileError.
    """

    def __init__(
        self,
        settings: Settings,
        kept: Path,
        groups: Collection[int] = (),
        lent: Mapping[bool, int] = NOT_LENT,
    ) -> None:
        self.minting: Minting | None = None
        self._kept = kept
        self._groups = frozenset(groups)
        self._own: dict[CertificateLine, OwnCertificate] = {}
        self._look_at = 0.0
        self._settings = settings
        try:
            load_libraries(settings)
        except (MissingLibraryError, PathCheckError) as error:
            raise KeyFileError(str(error)) from None
        if settings.terminates_tls:
            self._own = {line: read_own(line, self._groups, _now()) for line in settings.tls_certificate}
        if needs_ca(settings):
            files = ca_files(settings, kept)
            prepare_cas(files, lent)
            self.minting = Minting(files, lent)

    def of_worker(self) -> WorkerKeys:
        """For the workers that are started now."""
        minting = self.minting.workers_end if self.minting is not None else None
        return WorkerKeys(tuple(self._own.values()), minting)

    def read_again(self, settings: Settings) -> Callable[[], None]:
        """Look whether new settings can be used. Raises KeyFileError. The result puts them in force."""
        try:
            load_libraries(settings)
        except (MissingLibraryError, PathCheckError) as error:
            raise KeyFileError(str(error)) from None
        if needs_ca(settings) and self.minting is None:
            raise KeyFileError("Tls: terminate needs a CA, whose key is read when the daemon starts: restart it")
        own = {}
        for line in settings.tls_certificate if settings.terminates_tls else ():
            try:
                own[line] = read_own(line, self._groups, _now())
            except KeyFileError as error:
                if line not in self._own:
                    raise
                log.warning("%s: the certificate that was read before stays in force", error)
                own[line] = self._own[line]

        def use() -> None:
            self._own, self._settings, self._look_at = own, settings, 0.0

        return use

    # The master's loop.

    def due(self) -> float:
        """When `step` must be called next, on the monotonic clock."""
        minting = self.minting.due() if self.minting is not None else float("inf")
        return min(minting, self._look_at if self._settings.terminates_tls else float("inf"))

    def step(self, close_others: Callable[[], None]) -> None:
        """Start the minting process if it does not run; once a day, look what expires."""
        if self.minting is not None:
            self.minting.step(close_others)
        if self._settings.terminates_tls and time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + DAY
            for path, day, what in expiring(self._settings, self._kept, time.time()):
                log.warning("%s expires on %s: %s", path, day, what)

    def reaped(self, pid: int, status: int) -> bool:
        """A child of the master has ended. False: it is not ours."""
        return self.minting is not None and self.minting.reaped(pid, status)

    def close_in_worker(self) -> None:
        """In a process that was just forked."""
        if self.minting is not None:
            self.minting.close_in_worker()

    def close(self) -> None:
        """The daemon ends."""
        if self.minting is not None:
            self.minting.close()


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def ends(settings: Settings, kept: Path) -> Iterator[tuple[Path, float, bool]]:
    """The certificates in use whose files can be read: file, end in seconds since the epoch, whether it is a CA."""
    if not settings.terminates_tls:
        return
    for line in settings.tls_certificate:
        yield from _end(line.files.certificate, kept, False)
    if needs_ca(settings):
        for files in ca_files(settings, kept):
            yield from _end(str(files.certificate), kept, True)


def _end(name: str, kept: Path, is_ca: bool) -> Iterator[tuple[Path, float, bool]]:
    path = kept / name  # absolute paths: `kept` is not used
    try:
        found = certificates_of(read_certificates(path), name)
    except Exception:  # noqa: BLE001  (the start and the reload say what is wrong with it)
        return
    yield path, end_of(found[0]).timestamp(), is_ca


def expiring(settings: Settings, kept: Path, now: float) -> Iterator[tuple[Path, str, str]]:
    """What must be renewed: the file, the day, and what to do."""
    for path, end, is_ca in ends(settings, kept):
        if end - now < (CA_SOON if is_ca else OWN_SOON):
            yield path, f"{dt.datetime.fromtimestamp(end, dt.UTC):%Y-%m-%d}", _renewal(path, kept) if is_ca else _RELOAD


_RELOAD: Final = "renew it, and reload the daemon"


def _renewal(ca: Path, kept: Path) -> str:
    if ca.parent != kept / FOLDER:
        return "renew it, and restart the daemon; before that, clients must trust the new CA"
    if (ca.parent / "next-ca.pem").exists():
        return "when all clients trust the new CA, too (proxsmtp-tp tls-ca export), type proxsmtp-tp tls-ca renew --use"
    return "type proxsmtp-tp tls-ca renew, and let all clients trust the new CA, too"


def problems(settings: Settings, groups: Collection[int], owners: Collection[int] = ()) -> Iterator[str]:
    """What would make the start of the daemon fail, as far as this user may read the files. `owners`: see `open_ca`."""
    try:
        load_libraries(settings)
    except (MissingLibraryError, PathCheckError) as error:
        yield str(error)
        return
    for line in settings.tls_certificate if settings.terminates_tls else ():
        try:
            read_own(line, groups, _now())
        except KeyFileError as error:
            if _is_a_problem(error):
                yield str(error)
    for given in (settings.tls_ca, settings.tls_untrusted_ca) if needs_ca(settings) else ():
        if given is not None:
            yield from _problem_of_ca(Path(given.certificate), Path(given.key), owners)


def _problem_of_ca(certificate: Path, key: Path, owners: Collection[int]) -> Iterator[str]:
    try:
        descriptor = open_key(key, owners=owners)
        try:
            authority.read(read_certificates(certificate), read_all(descriptor), str(certificate), _now())
        finally:
            os.close(descriptor)
    except (CertificateError, KeyFileError) as error:
        if _is_a_problem(error):
            yield str(error)


def _is_a_problem(error: Exception) -> bool:
    """Whether the daemon has it, too. What this user may not read, the daemon's user, or root, perhaps may."""
    return not isinstance(error, NotReadableError) or isinstance(error, MissingFileError)


# CAs of our own.


def prepare_cas(files: Collection[CaFiles], lent: Mapping[bool, int] = NOT_LENT) -> None:
    """Make the CAs whose files are missing, and look whether all can sign. Raises KeyFileError.

    `lent`: see `key_files.take_ca`; these are not made.

    In a process of its own: no page of the master, which workers inherit, has ever had a key.
    """
    missing = [each for each in files if each.ours and each.trusted not in lent and not _there(each)]
    out, into = os.pipe()
    if (child := os.fork()) == 0:
        _prepare_in_child(files, missing, lent, into)
    os.close(into)
    with open(out, "rb") as said:  # noqa: PTH123  (a descriptor)
        problem = said.read()
    os.waitpid(child, 0)
    if problem:
        raise KeyFileError(problem.decode("utf-8", "replace"))
    for each in missing:
        trust = "clients must trust it: proxsmtp-tp tls-ca export" if each.trusted else "no client may trust it"
        log.log(NOTICE, "made a CA: %s: %s", each.certificate, trust)


def _there(files: CaFiles) -> bool:
    return files.certificate.exists() and files.key.exists()


def _prepare_in_child(
    files: Collection[CaFiles], missing: Collection[CaFiles], lent: Mapping[bool, int], into: int
) -> None:
    problem = ""
    try:
        for each in missing:
            make_ca(each)
        for each in files:
            _try(each, lent)
    except OSError as error:
        problem = f"a CA cannot be made: {error.filename}: {error.strerror}"
    except (CertificateError, KeyFileError) as error:
        problem = str(error)
    except BaseException as error:  # noqa: BLE001  (the parent tells it)
        problem = f"a CA cannot be made: {error!r}"
    finally:
        os.write(into, problem.encode("utf-8", "replace"))
        os._exit(0)


def _try(files: CaFiles, lent: Mapping[bool, int]) -> None:
    certificate, key = take_ca(files, lent)
    authority.read(certificate, read_all(key), str(files.certificate), _now())


def make_ca(files: CaFiles) -> None:
    """Make a CA of our own; one that is there is replaced. Raises KeyFileError, OSError."""
    host = socket.gethostname()
    name = f"mail gateway {host}" if files.trusted else f"UNTRUSTED server, by mail gateway {host}"
    certificate, key = authority.make(name, _now())
    folder = open_own_folder(files.key.parent)
    try:
        write_new(files.key.name, key, 0o600, folder)
        write_new(files.certificate.name, certificate, 0o644, folder)
    finally:
        os.close(folder)
