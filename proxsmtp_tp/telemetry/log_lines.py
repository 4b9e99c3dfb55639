"""Log lines of sessions in proxsmtpd's form (LogFormat proxsmtpd): facts to text.

The line of a message begins as 1.10 writes it: `client=, from=, to=, status=`. More fields follow. What makes the
fields unambiguous is in `quoting`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxsmtp_tp.telemetry.quoting import printable, quoted, shown

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxsmtp_tp.telemetry.facts import Refusal, SessionEnd, Transaction

    Address = Callable[[bytes], str]
    Words = Callable[[bytes], str]

LOGGED_RECIPIENTS = 20
"""Recipients named in a log line: syslog may cut long lines (RFC 5424 section 6.1 guarantees 480 octets)."""
RECIPIENT_CHARACTERS = 1200
"""Characters of all of them: with the other values (`quoting.LIMIT`) a line has less than 4000 octets."""


def transaction(client: str, facts: Transaction, address: Address = printable, words: Words = printable) -> str:
    """The line of a message. `address` shows an address, `words` what a server or filter said."""
    parts = [f"client={client}"]
    if facts.sender is not None:
        parts.append(f"from={quoted(address(facts.sender) or '<>')}")
    parts += _recipients(facts.recipients, address)
    parts += [f"status={quoted(words(facts.status.encode()))}", f"server={facts.server}"]
    if facts.reply:
        parts.append(f"reply={quoted(words(facts.reply))}")
    if (facts.verdict not in {"", "pass"} or facts.monitored) and facts.filter_words:
        parts.append(f"filter={quoted(words(facts.filter_words.encode()))}")
    if facts.is_message:
        parts += _of_message(facts, address)
    return ", ".join(parts)


def _recipients(recipients: list[bytes], address: Address) -> list[str]:
    parts, left = [], RECIPIENT_CHARACTERS
    for recipient in recipients[:LOGGED_RECIPIENTS]:
        parts.append(f"to={quoted(address(recipient))}")
        left -= len(parts[-1])
        if left < 0:
            break
    if len(recipients) > len(parts):
        parts.append(f"to=({len(recipients) - len(parts)} more)")
    return parts


def _of_message(facts: Transaction, address: Address) -> list[str]:
    seconds = facts.seconds
    parts = [f"size={facts.size}"]
    if facts.helo:
        parts.append(f"helo={shown(facts.helo)}")
    if facts.message_id:
        parts.append(f"message-id={quoted(address(facts.message_id))}")
    if facts.changed is not None:
        parts.append(f"changed={'yes' if facts.changed else 'no'}")
    if seconds.filter is not None:
        parts.append(f"filter-seconds={seconds.filter:.3f}")
    parts.append(f"seconds={seconds.total:.3f}")
    return parts


def refusal(client: str, facts: Refusal, address: Address = printable, words: Words = printable) -> str:
    """The line of a sender, a recipient or a DATA command that the server refused."""
    parts = [f"client={client}"]
    if facts.sender is not None:
        parts.append(f"from={quoted(address(facts.sender) or '<>')}")
    if facts.recipient is not None:
        parts.append(f"to={quoted(address(facts.recipient))}")
    parts += [f"refused={facts.command}", f"server={facts.server}", f"reply={quoted(words(facts.reply))}"]
    return ", ".join(parts)


def session_end(client: str, facts: SessionEnd) -> str:
    """The last line of a session. `rcpt=1/3`: one of three commands was accepted."""
    parts = [f"client={client}", f"server={facts.server}", f"disconnected={facts.how}"]
    if facts.helo:
        parts.append(f"helo={shown(facts.helo)}")
    counted = list(facts.commands.items())
    all_of_them = (sum(sent for _, (sent, _) in counted), sum(refused for _, (_, refused) in counted))
    parts += [f"{verb}={accepted(*numbers)}" for verb, numbers in [("commands", all_of_them), *counted]]
    parts += [f"messages={facts.messages}", f"seconds={facts.seconds:.3f}"]
    return ", ".join(parts)


def accepted(sent: int, refused: int) -> str:
    """As Postfix's smtpd writes it: the number, or accepted/all where some were refused."""
    return f"{sent - refused}/{sent}" if refused else str(sent)
