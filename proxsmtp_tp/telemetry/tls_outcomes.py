"""What can become of TLS in a session: each outcome has one log line and one counter (`proxsmtp_tls_total`).

side    whose leg it is about: client, server, or both
action  terminate, pass, refuse, strip (Tls); undecided: the client's hello has not come; clear: the client does not use
        TLS, and the server's leg is encrypted for UpstreamTls
level   what the server's leg had to have (UpstreamTls), where that matters; otherwise none
reason  in one word
"""

from __future__ import annotations

from typing import Final

NO_LEVEL: Final = "none"
_LEVELS: Final = ("encrypt", "dane", "verify", "secure")
"""Not `may`: TLS with the server is begun only where the level in force is more."""

_WITHOUT_LEVEL: Final = (
    ("client", "undecided", "busy octets_behind in_clear no_hello left timed_out"),
    ("server", "undecided", "refused octets_behind in_clear left"),
    ("client", "terminate", "certificate_rejected failed other_protocol left timed_out unused broken"),
    ("server", "terminate", "octets_behind left timed_out broken"),
    ("both", "pass", "passed not_tls timed_out too_long"),
    ("client", "pass", "learned"),
    ("client", "refuse", "address name dane"),
    ("client", "strip", "removed left"),
    ("server", "strip", "required"),
    ("client", "clear", "busy"),
    ("server", "clear", "refused octets_behind ehlo_refused timed_out broken"),
)
_BY_LEVEL: Final = (
    ("both", "terminate", "started"),
    ("server", "terminate", "failed unverified tlsa_unknown"),
    ("server", "clear", "started not_offered failed unverified tlsa_unknown"),
)

OUTCOMES: Final = tuple(
    (side, action, level, reason)
    for levels, rows in (((NO_LEVEL,), _WITHOUT_LEVEL), (_LEVELS, _BY_LEVEL))
    for side, action, reasons in rows
    for reason in reasons.split()
    for level in levels
)
"""Side, action, level and reason of each. `unused`: the client closed after the handshake without a command, as a
client does that verifies our certificate only then. `learned`: it has rejected our certificate, and passes the next
time (TlsRejected). `broken`: TLS failed after the handshake."""
