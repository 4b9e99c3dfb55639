"""Which clients are served, and with which options: for the daemon and for `explain`."""

from __future__ import annotations

import ipaddress
import socket
from typing import TYPE_CHECKING

from proxsmtp_tp.config.addresses import InetAddress
from proxsmtp_tp.config.settings import FilterType
from proxsmtp_tp.filters.reject import parse_reject
from proxsmtp_tp.net.original_destination import dialled_port
from proxsmtp_tp.session.options import options_of
from proxsmtp_tp.smtp import answers

if TYPE_CHECKING:
    from proxsmtp_tp.config.settings import Settings
    from proxsmtp_tp.session.options import Options
    from proxsmtp_tp.smtp.replies import Reply


def is_served(settings: Settings, ip: str) -> bool:
    """Whether Clients allows this client ("": a unix socket, to which its directory controls the access)."""
    if not settings.clients or not ip:
        return True
    address = ipaddress.ip_address(ip)
    return any(address in network for network in settings.clients)


def configured_port(settings: Settings) -> int:
    """The port in OutAddress; 0: a unix socket, or there is none."""
    return settings.out_address.port if isinstance(settings.out_address, InetAddress) else 0


def server_port(settings: Settings, client: socket.socket) -> int:
    """The port that would be dialled for this client, whose socket it is; 0: a unix socket, or the client is gone."""
    if not settings.transparent:
        return configured_port(settings)
    try:
        return dialled_port(client) if client.family != socket.AF_UNIX else 0
    except OSError:
        return 0


def turned_away(*, full: bool) -> Reply:
    """The reply to a client that may not connect now: MaxConnections is reached (`full`), or its share of it."""
    return answers.TOO_MANY_CONNECTIONS if full else answers.TOO_MANY_OF_CLIENT


def session_options(settings: Settings) -> Options:
    """The options of a session."""
    reject = parse_reject(settings.filter_reject) if settings.filter_type is FilterType.REJECT else None
    return options_of(settings, reject)
