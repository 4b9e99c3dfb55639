"""Log lines of sessions in proxsmtpd's form (LogFormat proxsmtpd): facts to text.

The line of a message begins as 1.10 writes it: `client=, from=, to=, status=`. More fields follow. What makes the
fields unambiguous is in `quoting`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxsmtp_tp.telemetry.addresses import Addresses
from proxsmtp_tp.telemetry.quoting import printable, quoted

if TYPE_CHECKING:
    from proxsmtp_tp.telemetry.facts import Refusal, SessionEnd, Transaction

LOGGED_RECIPIENTS = 20
"""Recipients named in a log line: syslog may cut long lines (RFC 5424 section 6.1 guarantees 480 octets)."""
RECIPIENT_CHARACTERS = 1200
"""Characters of all of them: with the other values (`quoting.LIMIT`) a line has less than 4000 octets."""


_FULL = Addresses()


def transaction(client: str, facts: Transaction, addresses: Addresses = _FULL) -> str:
    """The line of a message."""
    known = [*filter(None, (facts.sender,)), *facts.recipients]
    parts = [f"client={client}"]
    if facts.sender is not None:
        parts.append(f"from={quoted(addresses.address(facts.sender) or '<>')}")
    parts += _recipients(facts.recipients, addresses)
    parts += [f"status={quoted(addresses.words(facts.status, known))}", f"server={facts.server}"]
    if facts.reply:
        parts.append(f"reply={quoted(addresses.words(printable(facts.reply), known))}")
    if (facts.verdict not in {"", "pass"} or facts.monitored) and facts.filter_words:
        parts.append(f"filter={quoted(addresses.words(facts.filter_words, known))}")
    if facts.is_message:
        parts += _of_message(facts, addresses)
    return ", ".join(parts)


def _tls(facts: Transaction) -> list[str]:
    """The legs that have TLS."""
    legs = (("client_tls", facts.client_tls), ("server_tls", facts.server_tls))
    return [f"{name}={quoted(leg.short)}" for name, leg in legs if leg is not None]


def _recipients(recipients: list[bytes], addresses: Addresses) -> list[str]:
    parts, left = [], RECIPIENT_CHARACTERS
    for recipient in recipients[:LOGGED_RECIPIENTS]:
        parts.append(f"to={quoted(addresses.address(recipient))}")
        left -= len(parts[-1])
        if left < 0:
            break
    if len(recipients) > len(parts):
        parts.append(f"to=({len(recipients) - len(parts)} more)")
    return parts


def _of_message(facts: Transaction, addresses: Addresses) -> list[str]:
    seconds = facts.seconds
    parts = [f"size={facts.size}"]
    if facts.helo:
        parts.append(f"helo={quoted(addresses.words(printable(facts.helo)))}")
    if facts.message_id:
        parts.append(f"message-id={quoted(addresses.address(facts.message_id))}")
    parts += _tls(facts)
    if facts.changed is not None:
        parts.append(f"changed={'yes' if facts.changed else 'no'}")
    if facts.judged:
        judged = (f"{each.name}:{each.verdict}:{each.seconds:.3f}" for each in facts.judged)
        parts.append(f"filters={','.join(judged)}")
    if seconds.filter is not None:
        parts.append(f"filter-seconds={seconds.filter:.3f}")
    parts.append(f"seconds={seconds.total:.3f}")
    return parts


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
    parts = [f"client={client}", f"server={facts.server}", f"disconnected={facts.how}"]
    if facts.helo:
        parts.append(f"helo={quoted(addresses.words(printable(facts.helo)))}")
    counted = list(facts.commands.items())
    all_of_them = (sum(sent for _, (sent, _) in counted), sum(refused for _, (_, refused) in counted))
    parts += [f"{verb}={accepted(*numbers)}" for verb, numbers in [("commands", all_of_them), *counted]]
    parts += [f"messages={facts.messages}", f"seconds={facts.seconds:.3f}"]
    return ", ".join(parts)


def accepted(sent: int, refused: int) -> str:
    """As Postfix's smtpd writes it: the number, or accepted/all where some were refused."""
    return f"{sent - refused}/{sent}" if refused else str(sent)
