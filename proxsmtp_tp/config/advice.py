"""Warnings about a valid configuration that is probably not what was meant. Only check-config prints them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxsmtp_tp.config.addresses import InetAddress
from proxsmtp_tp.config.filter_lines import Failure
from proxsmtp_tp.config.settings import FilterType

if TYPE_CHECKING:
    from proxsmtp_tp.config.settings import Settings

_ALL_ADDRESSES = frozenset({"", "0.0.0.0", "::"})  # noqa: S104  (nobody listens here)


def advice(settings: Settings) -> list[str]:
    """One printable line for each, with what to write instead."""
    return [*_open_to_everybody(settings), *_nothing_is_filtered(settings), *_nothing_is_kept(settings)]


def _open_to_everybody(settings: Settings) -> list[str]:
    """Loopback mode has a warning of the reader."""
    everywhere = any(isinstance(where, InetAddress) and where.host in _ALL_ADDRESSES for where in settings.listen)
    if settings.transparent or settings.loopback or settings.clients or not everywhere:
        return []
    text = (
        f"Listen: everybody who reaches this host can send mail to {settings.out_address} through it, and that server"
        " takes it for mail of this host: name your clients in Clients, or give Listen an address (127.0.0.1:10025)"
    )
    return [text]


def _nothing_is_filtered(settings: Settings) -> list[str]:
    if not settings.transparent or settings.filtered or settings.filter_type is FilterType.REJECT:
        return []
    return ["Filter: there is no filter, and no FilterCommand: all mail passes this gateway unjudged"]


def _nothing_is_kept(settings: Settings) -> list[str]:
    if settings.quarantine_directory is not None:
        return []
    names = ", ".join(line.name for line in settings.filter if line.failure is Failure.QUARANTINE)
    if not names:
        return []
    text = (
        f"Filter: failure=quarantine of {names}: there is no QuarantineDirectory, so such mail is refused with 550:"
        " write QuarantineDirectory, or failure=tempfail"
    )
    return [text]
