"""What the certificate of a server proves: by a path to a CA and a name, or by a TLSA record (RFC 7672).

The handshake asks for no proof; `examine` looks at the chain behind it, before a byte of SMTP. What a level demands of
the result is `tls.levels.Demand.handshake_done`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from proxsmtp_tp.certificates import names
from proxsmtp_tp.tls.facts import Verified

if TYPE_CHECKING:
    from collections.abc import Sequence

    from proxsmtp_tp.certificates.path_check import Anchors


@dataclass(frozen=True, slots=True)
class Finding:
    """`reason`: why it is not NAME or DANE, for the log, in one line; "": it is.

    `names`: the DNS names of the certificate, which ours must have, too.
    """

    verified: Verified
    reason: str = ""
    names: tuple[str, ...] = ()

    @property
    def trusted(self) -> bool:
        """Whether the client may get a certificate of the CA that it trusts."""
        return self.verified in {Verified.NAME, Verified.DANE}


def examine(chain: Sequence[bytes], wanted: Sequence[str], anchors: Anchors) -> Finding:
    """A chain (DER, the server's certificate first), by the CAs and the names: one of `wanted` must match.

    `wanted`: the names of `match` in UpstreamTls, otherwise the name in our ClientHello. Without names at most TRUSTED.
    """
    found = names.dns_names(chain[0]) if chain else ()
    if problem := anchors.check(chain):
        return Finding(Verified.NO, problem, found)
    if not wanted:
        return Finding(Verified.TRUSTED, "no name to compare with", found)
    if not names.first_match(found, wanted):
        return Finding(Verified.TRUSTED, f"it is for {_listed(found)}, not for {_listed(wanted)}", found)
    return Finding(Verified.NAME, "", found)


_SHOWN = 3  # names in a line of the log


def _listed(found: Sequence[str]) -> str:
    shown = ", ".join(found[:_SHOWN]) or "no name"
    return shown if len(found) <= _SHOWN else f"{shown} and {len(found) - _SHOWN} more"
