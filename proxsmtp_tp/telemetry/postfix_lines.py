"""Log lines of sessions in Postfix's form (LogFormat postfix), as pflogsumm 1.1.5 and other programs read them.

A message has the lines that a relaying Postfix would write: `smtpd` receives it, `qmgr` tells sender and size,
`smtp` delivers it to each recipient, or `cleanup` rejects it for the filter. The queue id is the trace id of the
session; from its second message on, x and the number follow. Values that a peer, server or filter chose cannot look
like a field: `<`, `>` and `;` in them become `?`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxsmtp_tp.telemetry import events
from proxsmtp_tp.telemetry.facts import Refusal
from proxsmtp_tp.telemetry.log_lines import accepted
from proxsmtp_tp.telemetry.quoting import LIMIT, printable

if TYPE_CHECKING:
    from proxsmtp_tp.telemetry.addresses import Addresses
    from proxsmtp_tp.telemetry.events import Who
    from proxsmtp_tp.telemetry.facts import LimitRefusal, SessionEnd, Transaction

_STATUS = {"delivered": "sent", "rejected": "bounced"}
"""Everything else is deferred: the client still has the message, and tries again."""
_DSN = {"sent": "2.0.0", "bounced": "5.0.0", "deferred": "4.0.0"}
_SAFE = str.maketrans("<>;", "???")


def transaction(who: Who, facts: Transaction, addresses: Addresses) -> list[tuple[str, str]]:
    """The lines of a message, each with the name of the daemon that would write it."""
    known = [*filter(None, (facts.sender,)), *facts.recipients]
    said = events.reply(facts.reply, addresses, known) if facts.reply else None
    words = f"{said['code']} {said['enhanced'] or ''} {said['text']}".replace("  ", " ") if said else "connection lost"
    words = safe(words)
    if not facts.is_message:
        return [("smtpd", _reject("NOQUEUE", "MAIL", who, facts, addresses, words))]
    queue_id = who.trace_id if facts.number == 1 else f"{who.trace_id}x{facts.number}"
    lines = [("smtpd", f"{queue_id}: client={_host(who.client)}")]
    if facts.message_id:
        lines.append(("cleanup", f"{queue_id}: message-id=<{_address(facts.message_id.strip(b'<>'), addresses)}>"))
    if facts.origin != "server" and facts.status != "INTERRUPTED":
        verb = {"discard": "discard", "quarantine": "milter-hold"}.get(facts.verdict, "milter-reject")
        return [*lines, ("cleanup", _reject(queue_id, "END-OF-MESSAGE", who, facts, addresses, words, verb))]
    sender = _address(facts.sender or b"", addresses)
    count = len(facts.recipients)
    lines.append(("qmgr", f"{queue_id}: from=<{sender}>, size={facts.size}, nrcpt={count} (queue active)"))
    status = _STATUS.get(events.outcome(facts), "deferred")
    dsn = (said or {}).get("enhanced") or _DSN[status]
    relay = f"{safe(facts.server)}[{safe(facts.server)}]:{facts.port or 25}"
    seconds = facts.seconds
    client, server = seconds.client or 0.0, seconds.server or 0.0
    delays = f"{client:.2f}/{seconds.filter or 0.0:.2f}/0/{server:.2f}"
    rest = f"relay={relay}, delay={seconds.total:.2f}, delays={delays}, dsn={dsn}, status={status} ({words})"
    lines += [("smtp", f"{queue_id}: to=<{_address(to, addresses)}>, {rest}") for to in facts.recipients]
    return [*lines, ("qmgr", f"{queue_id}: removed")]


def refusal(who: Who, facts: Refusal, addresses: Addresses) -> str:
    """The line of a sender, recipient or DATA that the server refused."""
    known = [address for address in (facts.sender, facts.recipient) if address]
    words = safe(addresses.words(printable(facts.reply), known))
    recipient = "" if facts.recipient is None else f" to=<{_address(facts.recipient, addresses)}>"
    sender = _address(facts.sender or b"", addresses)
    where = f"{facts.command} from {_host(who.client)}"
    return f"NOQUEUE: reject: {where}: {words}; from=<{sender}>{recipient} proto=ESMTP, id={who.trace_id}"


def limit_refusal(who: Who, facts: LimitRefusal, addresses: Addresses) -> str:
    """The line of a client over a limit: at its connection, at MAIL or at RCPT."""
    if facts.command == "CONNECT":
        words = safe(addresses.words(printable(facts.reply)))
        return f"NOQUEUE: reject: CONNECT from {_host(who.client)}: {words}; proto=SMTP, id={who.trace_id}"
    return refusal(who, Refusal(facts.command, "", facts.sender, facts.recipient, facts.reply), addresses)


def session_end(who: Who, facts: SessionEnd) -> str:
    """The last line of a session."""
    counted = [f"{verb}={accepted(*numbers)}" for verb, numbers in facts.commands.items()]
    sent, refused = (sum(numbers[at] for numbers in facts.commands.values()) for at in (0, 1))
    counted.append(f"commands={accepted(sent, refused)}")
    return f"disconnect from {_host(who.client)} {' '.join(counted)}, id={who.trace_id}"


def safe(text: str) -> str:
    """Words of a peer, which cannot look like a field."""
    return text[:LIMIT].translate(_SAFE)


def _reject(  # noqa: PLR0913, PLR0917
    queue_id: str, stage: str, who: Who, facts: Transaction, addresses: Addresses, words: str, verb: str = "reject"
) -> str:
    sender = _address(facts.sender or b"", addresses)
    recipient = f" to=<{_address(facts.recipients[0], addresses)}>" if facts.recipients else ""
    helo = safe(addresses.words(printable(facts.helo)))
    origin = f"{stage} from {_host(who.client)}"
    return f"{queue_id}: {verb}: {origin}: {words}; from=<{sender}>{recipient} proto=ESMTP helo=<{helo}>"


def _host(address: str) -> str:
    return f"unknown[{address or 'unix socket'}]"


def _address(address: bytes, addresses: Addresses) -> str:
    return safe(addresses.address(address))
