"""The configured values that the dialogue depends on, made once for each worker."""

from __future__ import annotations

from dataclasses import dataclass

from proxsmtp_tp.config.settings import BareNewline, LogAddresses, Network, Settings, TlsDane, TransparentProxy
from proxsmtp_tp.smtp.replies import Reply
from proxsmtp_tp.tls.levels import UpstreamPolicy
from proxsmtp_tp.tls.policy import TlsPolicy

HIDDEN_NAME = b"smtp.passthru"
"""The name that replaces the server's in fixed and loopback mode: an MTA that reads its own name reports a loop."""

NO_UPSTREAM_LINES = UpstreamPolicy(())


@dataclass(frozen=True, slots=True)
class Options:
    """`header` is the Header directive as it is written (`message.header_inserter` reads it); None: no header."""

    filtered: bool = False
    reject: Reply | None = None
    skip_authenticated: bool = False
    refuse_bare_newlines: bool = False
    hidden_name: bytes | None = None
    header: str | None = None
    reset_unreachable: bool = False
    """Reset the client's connection if its server fails before the greeting (ConnectFailure)."""
    xclient: bool = False
    xclient_required: bool = True
    """With `xclient`: end the session if the server does not accept XCLIENT."""
    xforward_clients: tuple[Network, ...] = ()
    """Clients that may send XFORWARD; empty: none with `xclient`, otherwise all."""
    auth_without_tls: bool = False
    """Keep login mechanisms that show the password, although STARTTLS is removed."""
    size_limit: int = 0
    """The largest message in octets; 0: no limit of our own."""
    hide_addresses: bool = False
    """What a client or server says is not logged as it is (LogAddresses): it may have addresses in any form."""
    tls: TlsPolicy | None = None
    """The Tls lines; None: there are none, and STARTTLS is removed."""
    tls_dane: TlsDane = TlsDane.PASS
    """With terminate: what is done where the server's name has TLSA records."""
    tls_wrapped: frozenset[int] = frozenset()
    """Ports of servers on which TLS begins with the first octet."""
    upstream_tls: UpstreamPolicy = NO_UPSTREAM_LINES
    trace: bool = False
    """Log every line of the dialogue, except secrets and message text."""


def options_of(settings: Settings, reject: Reply | None, *, trace: bool = False) -> Options:
    """Make the options from the configuration; `reject` is the reply of FilterReject if FilterType is reject."""
    return Options(
        filtered=settings.filtered,
        reject=reject,
        skip_authenticated=settings.skip_authenticated,
        refuse_bare_newlines=settings.bare_newline is BareNewline.REJECT,
        hidden_name=HIDDEN_NAME if settings.transparent_proxy is TransparentProxy.OFF else None,
        header=settings.header,
        reset_unreachable=settings.reset_unreachable,
        xclient=settings.x_client,
        xclient_required=settings.x_client_required,
        xforward_clients=settings.x_forward_clients,
        auth_without_tls=settings.auth_without_tls,
        size_limit=settings.message_size_limit,
        hide_addresses=settings.log_addresses is not LogAddresses.FULL,
        tls=TlsPolicy(settings.tls) if settings.tls else None,
        tls_dane=settings.tls_dane,
        tls_wrapped=frozenset(settings.tls_wrapped),
        upstream_tls=UpstreamPolicy(settings.upstream_tls),
        trace=trace,
    )
