"""What doctor says of TLS: libraries, certificates and keys, when they expire, the CAs of servers, the resolver.

The files are looked at, not the daemon: what it has read may be older. Only the resolver of this host is asked.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from proxsmtp_tp.certificates.libraries import MissingLibraryError
from proxsmtp_tp.certificates.material import CertificateError
from proxsmtp_tp.certificates.path_check import PathCheckError
from proxsmtp_tp.certificates.pem import certificates_of, end_of
from proxsmtp_tp.cli.state_files import directory_of, owners_of
from proxsmtp_tp.gateway.doctor.findings import Finding, unseen
from proxsmtp_tp.gateway.doctor.fixes import NONE, Fix, words
from proxsmtp_tp.gateway.doctor.unit import unit_name
from proxsmtp_tp.net.tls_resolver import RESOLV_CONF, Resolver, local_nameservers
from proxsmtp_tp.service.ca_renewal import next_of
from proxsmtp_tp.service.key_files import CaFiles, KeyFileError, ca_files, open_ca, read_ca, read_own
from proxsmtp_tp.service.privileges import groups_of
from proxsmtp_tp.service.tls_keys import CA_SOON, OWN_SOON, load_libraries, needs_ca

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from proxsmtp_tp.config.settings import Settings


def examine(path: str, settings: Settings, resolv_conf: Path = RESOLV_CONF) -> Iterator[Finding]:
    """One finding for each file and for the resolver; nothing without Tls lines. `path`: the configuration file."""
    if not settings.tls:
        return
    try:
        load_libraries(settings)
    except MissingLibraryError as error:
        yield Finding("TLS libraries", False, str(error))
        return
    except PathCheckError as error:
        yield Finding("CAs of servers", False, str(error))
    else:
        yield Finding("CAs of servers", True, settings.upstream_ca_file or "those of the system")
    if settings.terminates_tls:
        yield from _own(settings)
    if needs_ca(settings):
        for files in ca_files(settings, directory_of(path, settings)):
            yield _ca(files, path, settings)
    if settings.needs_resolver:
        yield _resolver(local_nameservers(resolv_conf))


def authorities(path: str, settings: Settings) -> dict[bool, bytes]:
    """The certificates of both CAs: True is the one that clients trust. Without those that cannot be read.

    The daemon may run with another file than this one, and have CAs where this one needs none.
    """
    found: dict[bool, bytes] = {}
    for files in ca_files(settings, directory_of(path, settings)):
        with suppress(KeyFileError):
            found[files.trusted] = read_ca(files, owners_of(path, settings))
    return found


def _own(settings: Settings) -> Iterator[Finding]:
    groups = groups_of(settings)
    for line in settings.tls_certificate:
        step = f"certificate {line.files.certificate}"
        try:
            own = read_own(line, groups, dt.datetime.now(dt.UTC))
        except KeyFileError as error:
            yield Finding(step, False, str(error))
        else:
            yield _ends(step, own.material.ends, OWN_SOON, "its renewal has failed: renew it, and reload the daemon")


def _ca(files: CaFiles, path: str, settings: Settings) -> Finding:
    step = f"CA {files.certificate}" if files.trusted else f"untrusted CA {files.certificate}"
    if files.ours and not files.certificate.exists():
        return unseen(step, "there is none yet, or its folder cannot be read; the daemon makes it when it starts")
    try:
        certificate, key = open_ca(files, owners_of(path, settings))
        os.close(key)
        end = end_of(certificates_of(certificate, str(files.certificate))[0])
    except (CertificateError, KeyFileError) as error:
        return Finding(step, False, str(error))
    return _ends(step, end.timestamp(), CA_SOON, *_renewal(files, path, settings))


def _renewal(files: CaFiles, path: str, settings: Settings) -> tuple[str, Fix]:
    """What to do about a CA that expires, and the command for the next step, unless clients must trust the CA first."""

    def command(*parts: str) -> Fix:
        return words("proxsmtp-tp", "tls-ca", *parts, "-f", path)

    unit = unit_name(path, settings.instance)
    restart = f"`systemctl restart {unit}`" if unit is not None else "a restart of the daemon"
    last = f"`{command('renew', '--use')}` and {restart}"
    if not files.ours:
        return f"renew it where it was made, let clients trust the new one, too, then {restart}", NONE
    if not files.trusted:
        return f"no client knows it: {last} also make it anew", NONE
    then = f"put what `{command('export')}` prints into the trust stores of all clients; when all have it, {last}"
    if next_of(files).certificate.exists():
        return f"the next one is made: {then}", NONE
    return f"make the next one beside it; then {then}", command("renew")


def _ends(step: str, end: float, soon: float, what: str, to_type: Fix = NONE) -> Finding:
    day = f"{dt.datetime.fromtimestamp(end, dt.UTC):%Y-%m-%d}"
    if end - time.time() < soon:
        return Finding(step, False, f"it expires on {day}: {what}", to_type)
    return Finding(step, True, f"valid until {day}")


def _resolver(servers: tuple[tuple[str, int], ...]) -> Finding:
    step = "resolver for TLSA records"
    if not servers:
        text = f"none on a loopback address in {RESOLV_CONF}: install one that validates DNSSEC (apt install unbound)"
        return Finding(step, False, f"{text}; until then no server has TLSA records")
    shown = ", ".join(address for address, _ in servers)
    if not asyncio.run(Resolver(servers).validates()):
        text = f"{shown} does not answer, or does not validate DNSSEC: until it does, no server has TLSA records"
        return Finding(step, False, text)
    return Finding(step, True, f"{shown} validates DNSSEC")
