"""proxsmtp-tp tls-ca: the CA that signs the certificates which clients get (TlsCa), shown, or for their trust stores.

`show` and `export` read files of certificates only, never a key, follow no link in the state directory, and write no
file. `renew` makes the CA that is to follow (`service.ca_renewal`). `lend` is for the unit (`service.lending`).
"""

from __future__ import annotations

import datetime as dt
import hashlib
import os
import ssl
import sys
from typing import TYPE_CHECKING

from proxsmtp_tp.certificates.libraries import MissingLibraryError
from proxsmtp_tp.certificates.material import CertificateError
from proxsmtp_tp.certificates.pem import certificates_of, end_of
from proxsmtp_tp.cli.instances import add_options, choose, prints_config_errors
from proxsmtp_tp.cli.state_files import directory_of, owners_of
from proxsmtp_tp.config.reader import load_config, printable
from proxsmtp_tp.service import logging as logs
from proxsmtp_tp.service.ca_renewal import next_of, prepare_next, use_next
from proxsmtp_tp.service.key_files import KeyFileError, ca_files, read_ca
from proxsmtp_tp.service.lending import lend
from proxsmtp_tp.service.readiness import Notifier
from proxsmtp_tp.service.tls_keys import needs_ca

if TYPE_CHECKING:
    import argparse
    from collections.abc import Collection

    from proxsmtp_tp.service.key_files import CaFiles


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `tls-ca`."""
    parser = subparsers.add_parser("tls-ca", help="show the CA that clients must trust, or write it for trust stores")
    parser.add_argument(
        "what",
        choices=("show", "export", "renew", "lend"),
        help="show: both CAs, the end of their validity, their fingerprints. export: the certificate in PEM; after"
        " renew, two. renew: make the CA that is to follow. lend: for the unit, as root, before the daemon starts: make"
        " the CAs that are missing, and open the keys for it",
    )
    add_options(parser)
    parser.add_argument("--use", action="store_true", help="with renew: use the new CA in place of the old one")
    parser.set_defaults(func=run)


@prints_config_errors
def run(args: argparse.Namespace) -> int:
    """0: done. 1: there is no CA yet, or it cannot be read. 2: usage or configuration."""
    if args.use and args.what != "renew":
        print("proxsmtp-tp: --use is for renew", file=sys.stderr)
        return 2
    path = choose(args.file, args.instance).path
    settings = load_config(path).settings
    trusted, untrusted = ca_files(settings, directory_of(path, settings))
    owners = owners_of(path, settings)
    try:
        if args.what == "lend":
            logs.set_up(logs.StreamHandler("proxsmtp-tp"), settings.log_level)
            lend(settings, directory_of(path, settings), owners, Notifier())
        elif args.what == "export":
            sys.stdout.write("".join(_first(each, owners) for each in _to_trust(trusted)))
        elif args.what == "renew":
            print(_renew(trusted, untrusted, use=args.use))
        else:
            shown = [describe(each, owners) for each in (*_to_trust(trusted), untrusted)]
            print("\n\n".join("\n".join(lines) for lines in shown))
    except (CertificateError, KeyFileError, MissingLibraryError, OSError) as error:
        print(f"proxsmtp-tp: {printable(str(error))}", file=sys.stderr)
        if trusted.ours and not trusted.certificate.exists():
            print(f"proxsmtp-tp: {_when_made(needs_ca(settings))}", file=sys.stderr)
        return 1
    return 0


def _to_trust(trusted: CaFiles) -> list[CaFiles]:
    """The CA that clients must trust, and the one that is to follow it."""
    following = next_of(trusted)
    return [trusted, following] if trusted.ours and following.certificate.exists() else [trusted]


def _renew(trusted: CaFiles, untrusted: CaFiles, *, use: bool) -> str:
    """What was done, and what comes next. Raises KeyFileError, OSError."""
    if use:
        use_next(trusted, untrusted)
        return "The new CA is in place: restart the daemon. Clients need the old one no longer."
    made = prepare_next(trusted)
    return (
        f"made {made.certificate}; the old CA stays in use.\n"
        "Next: put both certificates into the trust stores of all clients (proxsmtp-tp tls-ca export),\n"
        "then type proxsmtp-tp tls-ca renew --use, and restart the daemon."
    )


def _when_made(needed: bool) -> str:
    text = "none is needed: it is made where `Tls: terminate` has no TlsCertificate for all servers"
    if needed:
        text = "it is made when the daemon starts for the first time"
    return text if os.geteuid() == 0 else f"{text}; where root or systemd starts the daemon, type this as root"


def _first(files: CaFiles, owners: Collection[int]) -> str:
    """The certificate of the CA itself, in PEM. Raises KeyFileError."""
    text = read_ca(files, owners).decode("ascii", "replace")
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    found = text[text.find(begin) :].partition(end)
    if not found[1] or not found[0].startswith(begin):
        raise KeyFileError(f"{files.certificate}: there is no certificate in PEM in it")
    return f"{found[0]}{end}\n"


def describe(files: CaFiles, owners: Collection[int]) -> list[str]:
    """One CA, for people. `owners`: see `key_files.open_ca`. Raises KeyFileError, CertificateError."""
    pem = _first(files, owners)
    certificate = certificates_of(pem.encode(), str(files.certificate))[0]
    digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest().upper()
    end = end_of(certificate)
    what = "verified servers: clients must trust it" if files.trusted else "other servers: no client may trust it"
    if files.certificate.name.startswith("next-"):
        what = "verified servers, after `tls-ca renew --use`: clients must trust it, too, before that"
    lines = [
        f"CA for {what}",
        f"  file      {files.certificate}",
        f"  subject   {certificate.subject.rfc4514_string()}",
        f"  until     {end:%Y-%m-%d} ({(end - dt.datetime.now(dt.UTC)).days} days)",
        f"  SHA-256   {':'.join(digest[at : at + 2] for at in range(0, len(digest), 2))}",
    ]
    return [printable(line) for line in lines]
