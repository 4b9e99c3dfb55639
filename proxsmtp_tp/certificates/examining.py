"""What the certificate of a server proves: by a path to a CA and a name, or by a TLSA record (RFC 7672).

The handshake does not verify the chain; `examine` does it afterwards, before a byte of SMTP. What a level demands of
the result is `tls.levels.Demand.handshake_done`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from proxsmtp_tp.certificates import names
from proxsmtp_tp.certificates.path_check import check_below
from proxsmtp_tp.tls.facts import Verified
from proxsmtp_tp.tls.tlsa import matches

if TYPE_CHECKING:
    from collections.abc import Sequence

    from proxsmtp_tp.certificates.path_check import Anchors
    from proxsmtp_tp.tls.tlsa import Tlsa


@dataclass(frozen=True, slots=True)
class Finding:
    """`reason`: why it is not NAME or DANE, for the log, in one line; "": it is.

    `names`: what ours must have, too: the DNS names of the certificate; with DANE those of the TLSA records.
    """

    verified: Verified
    reason: str = ""
    names: tuple[str, ...] = ()


def examine(chain: Sequence[bytes], wanted: Sequence[str], anchors: Anchors) -> Finding:
    """A chain (DER, the server's certificate first), by the CAs and the names: one of `wanted` must match.

    `wanted`: the names of `match` in UpstreamTls, otherwise the name in our ClientHello. Without names at most
    TRUSTED: what it is for is known, and not whether that is the server that was meant.
    """
    found = names.dns_names(chain[0]) if chain else ()
    if problem := anchors.check(chain):
        return Finding(Verified.NO, problem, found)
    if not wanted:
        return Finding(Verified.TRUSTED, "no name to compare with", found)
    if not names.first_match(found, wanted):
        return Finding(Verified.NO, f"it is for {_listed(found)}, not for {_listed(wanted)}", found)
    return Finding(Verified.NAME, "", found)


def examine_dane(chain: Sequence[bytes], wanted: Sequence[str], records: Sequence[Tlsa]) -> Finding:
    """The same by usable TLSA records. `wanted`: the names of `net.tls_resolver.Dane`.

    Usage 3 compares the server's certificate alone, without names and dates; usage 2 needs a valid path to the
    certificate that a record names, and a name (RFC 7671 section 5). No CA confirms the other names in the certificate:
    the owner of the record can write any name there. So `names` are those of the record.
    """
    found = names.dns_names(chain[0]) if chain else ()
    match = matches(records, chain)
    if match.leaf is not None:
        return Finding(Verified.DANE, "", tuple(wanted))
    reason = "no TLSA record matches it"
    tried = set[int]()
    for place, record in match.anchors:
        if place in tried or len(tried) == _ISSUERS_MAX:
            continue
        tried.add(place)
        problem = check_below(chain[place], chain)
        if not problem and not names.first_match(found, wanted):
            problem = f"it is for {_listed(found)}, not for {_listed(wanted)}"
        if not problem:
            return Finding(Verified.DANE, "", tuple(wanted))
        reason = f"TLSA {record} matches an issuer, but {problem}"
    return Finding(Verified.NO, reason, found)


_SHOWN = 3  # names in a line of the log
_ISSUERS_MAX = 3
"""Issuers in a chain whose path is checked, each once: usual records name one, or two while it is renewed. A path takes
a millisecond, but up to 80 where the keys are of 16384 bit, and the worker waits."""


def _listed(found: Sequence[str]) -> str:
    shown = ", ".join(found[:_SHOWN]) or "no name"
    return shown if len(found) <= _SHOWN else f"{shown} and {len(found) - _SHOWN} more"
