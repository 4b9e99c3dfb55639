"""The configured choices that the dialogue depends on: values, made once for each worker."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from proxsmtp_tp.config.settings import BareNewline, FilterType, Settings, TransparentProxy

if TYPE_CHECKING:
    from proxsmtp_tp.smtp.replies import Reply

HIDDEN_NAME = b"smtp.passthru"
"""What stands for the server's name in fixed and loopback mode: an MTA that meets its own name reports a loop."""


@dataclass(frozen=True, slots=True)
class Options:
    """`header` is the Header directive with its escapes resolved but for %i, %l and %d; None: no header."""

    filtered: bool = False
    reject: Reply | None = None
    skip_authenticated: bool = False
    refuse_bare_newlines: bool = False
    hidden_name: bytes | None = None
    header: str | None = None
    xclient: bool = False
    trace: bool = False
    """Log every line of the dialogue, but for secrets and text."""


_ESCAPES = {"r": "\r", "n": "\n", "t": "\t"}


def unescaped(text: str) -> str:
    """The escapes of the Header directive: \\r, \\n and \\t; any other \\x is x (proxsmtpd.conf(5))."""
    return re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[1]), text)


def options_of(settings: Settings, reject: Reply | None, *, trace: bool = False) -> Options:
    """The options that the configuration asks for; `reject` is FilterReject as a reply where FilterType is reject."""
    return Options(
        filtered=settings.filter_command is not None and settings.filter_type is not FilterType.REJECT,
        reject=reject,
        skip_authenticated=settings.skip_authenticated,
        refuse_bare_newlines=settings.bare_newline is BareNewline.REJECT,
        hidden_name=HIDDEN_NAME if settings.transparent_proxy is TransparentProxy.OFF else None,
        header=unescaped(settings.header) if settings.header else None,
        xclient=settings.x_client,
        trace=trace,
    )
