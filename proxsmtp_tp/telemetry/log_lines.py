"""Log lines of sessions in proxsmtpd's form (LogFormat proxsmtpd): facts to text.

The line of a message begins as 1.10 writes it: `client=, from=, to=, status=`. More fields follow. What makes the
fields unambiguous is in `quoting`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from proxsmtp_tp.telemetry.addresses import Addresses
from proxsmtp_tp.telemetry.quoting import printable, quoted

if TYPE_CHECKING:
    from proxsmtp_tp.telemetry.facts import Refusal, SessionEnd, Transaction

LOGGED_RECIPIENTS: Final = 20
"""Recipients named in a log line: syslog may cut long lines (RFC 5424 section 6.1 guarantees 480 octets)."""
RECIPIENT_CHARACTERS: Final = 1200
"""Characters of all of them: with the other values (`quoting.LIMIT`) a line has less than 4000 octets."""


_FULL = Addresses()


def transaction(client: str, facts: Transaction, addresses: Addresses = _FULL) -> str:
    """The line of a message."""
    known = [] if addresses.full else [*filter(None, (facts.sender,)), *facts.recipients]
    text = f"client={client}"
    if facts.sender is not None:
        text += f", from={quoted(addresses.address(facts.sender) or '<>')}"
    text += _recipients(facts.recipients, addresses)
    text += f", status={quoted(addresses.words(facts.status, known))}, server={facts.server}"
    if facts.reply:
        text += f", reply={quoted(addresses.words(printable(facts.reply), known))}"
    if facts.filter_words and (facts.verdict not in {"", "pass"} or facts.monitored):
        text += f", filter={quoted(addresses.words(facts.filter_words, known))}"
    return text + _of_message(facts, addresses) if facts.is_message else text


def _recipients(recipients: list[bytes], addresses: Addresses) -> str:
    text, named = "", 0
    for recipient in recipients[:LOGGED_RECIPIENTS]:
        text += f", to={quoted(addresses.address(recipient))}"
        named += 1
        if len(text) > RECIPIENT_CHARACTERS:
            break
    return text if named == len(recipients) else f"{text}, to=({len(recipients) - named} more)"


def _of_message(facts: Transaction, addresses: Addresses) -> str:
    seconds = facts.seconds
    text = f", size={facts.size}"
    if facts.helo:
        text += f", helo={quoted(addresses.words(printable(facts.helo)))}"
    if facts.message_id:
        text += f", message-id={quoted(addresses.address(facts.message_id))}"
    if facts.client_tls is not None:
        text += f", client_tls={quoted(facts.client_tls.short)}"
    if facts.server_tls is not None:
        text += f", server_tls={quoted(facts.server_tls.short)}"
    if facts.changed is not None:
        text += f", changed={'yes' if facts.changed else 'no'}"
    if facts.judged:
        judged = [f"{each.name}:{each.verdict}:{_thousandths(each.seconds)}" for each in facts.judged]
        text += f", filters={','.join(judged)}"
    if seconds.filter is not None:
        text += f", filter-seconds={_thousandths(seconds.filter)}"
    return f"{text}, seconds={_thousandths(seconds.total)}"


def refusal(client: str, facts: Refusal, addresses: Addresses = _FULL) -> str:
    """The line of a sender, a recipient or a DATA command that the server refused."""
    known = [address for address in (facts.sender, facts.recipient) if address]
    parts = [f"client={client}"]
    if facts.sender is not None:
        parts.append(f"from={quoted(addresses.address(facts.sender) or '<>')}")
    if facts.recipient is not None:
        parts.append(f"to={quoted(addresses.address(facts.recipient))}")
    parts += [
        f"refused={facts.command}",
        f"server={facts.server}",
        f"reply={quoted(addresses.words(printable(facts.reply), known))}",
    ]
    return ", ".join(parts)


def session_end(client: str, facts: SessionEnd, addresses: Addresses = _FULL) -> str:
    """The last line of a session. `rcpt=1/3`: one of three commands was accepted."""
    text = f"client={client}, server={facts.server}, disconnected={facts.how}"
    if facts.helo:
        text += f", helo={quoted(addresses.words(printable(facts.helo)))}"
    each, all_sent, all_refused = "", 0, 0
    for verb, (sent, refused) in facts.commands.items():
        each += f", {verb}={accepted(sent, refused)}"
        all_sent += sent
        all_refused += refused
    text += f", commands={accepted(all_sent, all_refused)}{each}, messages={facts.messages}"
    return f"{text}, seconds={_thousandths(facts.seconds)}"


def _thousandths(seconds: float) -> str:
    digits = str(int(seconds * 1000 + 0.5)).zfill(4)  # to format a float takes five times as long
    return f"{digits[:-3]}.{digits[-3:]}"


def accepted(sent: int, refused: int) -> str:
    """As Postfix's smtpd writes it: the number, or accepted/all where some were refused."""
    return f"{sent - refused}/{sent}" if refused else str(sent)
