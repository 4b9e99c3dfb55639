"""The forms of log lines about sessions (LogFormat): proxsmtpd, postfix, json.

Each form makes lines of the facts. `daemon` of a line is the name after the slash in the tag of the postfix form, as in
the tags of Postfix's daemons; `service.logging` writes the tag. `fields` are the values of a line in the json form.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final, Protocol

from proxsmtp_tp.telemetry import events, log_lines, postfix_lines

if TYPE_CHECKING:
    from proxsmtp_tp.telemetry.addresses import Addresses
    from proxsmtp_tp.telemetry.events import Who
    from proxsmtp_tp.telemetry.facts import LimitRefusal, Refusal, SessionEnd, Transaction

TEXT_MAX: Final = 3600
"""Characters of a line without its name and id: `service.logging` cuts at 4000 octets, and the id must stay."""


class Line:
    """One line of the log."""

    __slots__ = ("daemon", "fields", "text")

    def __init__(self, text: str, daemon: str = "smtpd", fields: dict[str, Any] | None = None) -> None:
        self.text = text
        self.daemon = daemon
        self.fields = fields


class Form(Protocol):
    """How the lines of a session look. Addresses and words are shown as LogAddresses says."""

    def text(self, who: Who, level: int, words: str) -> Line:
        """A line in words, which are shown as they are."""

    def transaction(self, who: Who, facts: Transaction) -> list[Line]:
        """The lines of a message, or of a sender that was refused with FilterReject."""

    def refusal(self, who: Who, facts: Refusal) -> Line:
        """The server refused MAIL, RCPT or DATA."""

    def limit_refusal(self, who: Who, facts: LimitRefusal) -> list[Line]:
        """A client over a limit was refused; often no line: the first one in a session has a line in words."""

    def session_end(self, who: Who, facts: SessionEnd) -> Line:
        """The end of a session."""


class ProxsmtpdForm:
    """`000001: client=.., from=.., to=.., status=.., .., id=..`: 1.10's line, and more fields after it."""

    def __init__(self, addresses: Addresses) -> None:
        self._addresses = addresses

    def text(self, who: Who, _level: int, words: str) -> Line:
        """Form."""
        return Line(f"{who.name}: {bounded(words)}, id={who.trace_id}")

    def transaction(self, who: Who, facts: Transaction) -> list[Line]:
        """Form."""
        return [self.text(who, 0, log_lines.transaction(who.client, facts, self._addresses))]

    def refusal(self, who: Who, facts: Refusal) -> Line:
        """Form."""
        return self.text(who, 0, log_lines.refusal(who.client, facts, self._addresses))

    def limit_refusal(self, _who: Who, _facts: LimitRefusal) -> list[Line]:
        """Form."""
        return []

    def session_end(self, who: Who, facts: SessionEnd) -> Line:
        """Form."""
        return self.text(who, 0, log_lines.session_end(who.client, facts, self._addresses))


class PostfixForm:
    """As Postfix writes them, as far as pflogsumm and other programs read them."""

    def __init__(self, addresses: Addresses) -> None:
        self._addresses = addresses

    def text(self, who: Who, level: int, words: str) -> Line:
        """Form."""
        warning = "warning: " if level >= logging.WARNING else ""
        return Line(f"{warning}{bounded(words)}, id={who.trace_id}")

    def transaction(self, who: Who, facts: Transaction) -> list[Line]:
        """Form."""
        return [Line(line, daemon) for daemon, line in postfix_lines.transaction(who, facts, self._addresses)]

    def refusal(self, who: Who, facts: Refusal) -> Line:
        """Form."""
        return Line(postfix_lines.refusal(who, facts, self._addresses))

    def limit_refusal(self, who: Who, facts: LimitRefusal) -> list[Line]:
        """Form."""
        return [Line(postfix_lines.limit_refusal(who, facts, self._addresses))]

    def session_end(self, who: Who, facts: SessionEnd) -> Line:
        """Form."""
        return Line(postfix_lines.session_end(who, facts))


class JsonForm:
    """One JSON object a line; `service.logging` adds level and process id."""

    def __init__(self, addresses: Addresses) -> None:
        self._addresses = addresses

    def text(self, who: Who, _level: int, words: str) -> Line:
        """Form."""
        return Line("", fields=events.text(who, bounded(words)))

    def transaction(self, who: Who, facts: Transaction) -> list[Line]:
        """Form."""
        return [Line("", fields=events.transaction(who, facts, self._addresses))]

    def refusal(self, who: Who, facts: Refusal) -> Line:
        """Form."""
        return Line("", fields=events.refusal(who, facts, self._addresses))

    def limit_refusal(self, _who: Who, _facts: LimitRefusal) -> list[Line]:
        """Form."""
        return []

    def session_end(self, who: Who, facts: SessionEnd) -> Line:
        """Form."""
        return Line("", fields=events.session_end(who, facts, self._addresses))


FORMS: dict[str, type[ProxsmtpdForm | PostfixForm | JsonForm]] = {
    "proxsmtpd": ProxsmtpdForm,
    "postfix": PostfixForm,
    "json": JsonForm,
}
"""By the value of LogFormat."""


def bounded(text: str) -> str:
    """Cut a line that is too long. Values are short enough (`quoting.LIMIT`), so no line of the session is cut."""
    return text if len(text) <= TEXT_MAX else text[:TEXT_MAX] + "..."
