"""Events: what happened, as values for JSON. docs/event.schema.json describes them.

Names follow ECS and OpenTelemetry where these agree (client.address, server.address). An event has less than 4096
octets as JSON: long values are cut, and if there are many recipients, only their number is given.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from proxsmtp_tp.telemetry.facts import ABANDONED
from proxsmtp_tp.telemetry.quoting import printable

if TYPE_CHECKING:
    from proxsmtp_tp.telemetry.addresses import Addresses
    from proxsmtp_tp.telemetry.facts import LimitHit, Refusal, Seconds, SessionEnd, TlsLeg, Transaction

VERSION = 1
RECIPIENTS_MAX = 10
"""Recipients with their addresses; with 100 octets each and the other values, an event has less than 4096 octets."""
TEXT_MAX = 250
"""Characters of a value; see also `encoded`."""
OCTETS_MAX = 4096
"""Octets of an event as JSON: the kernel never splits a write of this size to a pipe (PIPE_BUF), nor a datagram."""

_ENCODER: Final = json.JSONEncoder(separators=(",", ":"))  # json.dumps would make one each time
_ENHANCED = re.compile(r"[245]\.\d{1,3}\.\d{1,3}(?= |$)")


class Who:
    """The session. `name` is what its log lines begin with, as in 1.10. No NamedTuple: there is one for each line."""

    __slots__ = ("client", "instance", "name", "port", "trace_id", "worker")

    def __init__(  # noqa: PLR0913, PLR0917  (its values)
        self, name: str, trace_id: str, client: str, port: int = 0, instance: str = "", worker: int = 0
    ) -> None:
        self.name = name
        self.trace_id = trace_id
        self.client = client
        self.port = port
        self.instance = instance
        self.worker = worker


def outcome(facts: Transaction) -> str:
    """The result of a transaction, in one word: `status` of the event."""
    code = facts.reply[:1]
    if facts.status in {ABANDONED, "INTERRUPTED"}:
        return facts.status.lower()
    if facts.verdict in {"discard", "quarantine"} and code == b"2":
        return "discarded" if facts.verdict == "discard" else "quarantined"
    if code == b"2" and facts.is_message:
        return "delivered"
    if not facts.is_message and facts.refused:
        return "deferred" if any(refused < 500 for _, refused in facts.refused) else "rejected"
    return "deferred" if code == b"4" else "rejected"


def transaction(who: Who, facts: Transaction, addresses: Addresses) -> dict[str, Any]:
    """The event of a transaction."""
    known = [*filter(None, (facts.sender,)), *facts.recipients, *(address for address, _ in facts.refused)]
    event = _begin("message", who)
    event["message"] = facts.number
    event["client"]["helo"] = _cut(addresses.words(printable(facts.helo), known))
    event["server"] = {"address": facts.server} | ({"port": facts.port} if facts.port else {})
    for side, leg in (("client", facts.client_tls), ("server", facts.server_tls)):
        if leg is not None:
            event[side]["tls"] = _tls(leg)
    event["from"] = None if facts.sender is None else _cut(addresses.address(facts.sender))
    event |= _recipients(facts, addresses)
    event["status"] = outcome(facts)
    if facts.is_message:
        event["bytes"] = facts.size
        event["message_id"] = _cut(addresses.address(facts.message_id)) or None
        event["changed"] = facts.changed
    event["reply"] = reply(facts.reply, addresses, known) | {"origin": facts.origin} if facts.reply else None
    if facts.monitored:
        event["monitored"] = facts.monitored
    verdict = {"SKIPPED": "skip", "BYPASSED": "bypass"}.get(facts.status, facts.verdict)
    text = _cut(addresses.words(facts.filter_words, known))
    event["filter"] = {"verdict": verdict, "text": text} if verdict else None
    if facts.judged:
        event["filters"] = [
            {
                "name": each.name,
                "verdict": each.verdict,
                "ms": round(each.seconds * 1000),
                "text": _cut(addresses.words(each.text, known)),
            }
            for each in facts.judged
        ]
    if facts.limits:
        event["limits"] = [_limit(hit) for hit in facts.limits]
    event["ms"] = _milliseconds(facts.seconds)
    event["duplicate_risk"] = facts.duplicate_risk
    return event


def _tls(leg: TlsLeg) -> dict[str, Any]:
    known = {"version": leg.version, "cipher": leg.cipher, "server_name": _cut(leg.server_name)}
    return known | ({"verified": leg.verified} if leg.verified else {})


def refusal(who: Who, facts: Refusal, addresses: Addresses) -> dict[str, Any]:
    """For the log: the server refused MAIL, RCPT or DATA."""
    known = [address for address in (facts.sender, facts.recipient) if address]
    event = _begin("refusal", who) | {"server": {"address": facts.server}, "command": facts.command}
    event["from"] = None if facts.sender is None else _cut(addresses.address(facts.sender))
    if facts.recipient is not None:
        event["to"] = _cut(addresses.address(facts.recipient))
    event["reply"] = reply(facts.reply, addresses, known) | {"origin": "server"}
    return event


def session_end(who: Who, facts: SessionEnd, addresses: Addresses) -> dict[str, Any]:
    """For the log: the end of a session."""
    event = _begin("session", who)
    event["client"]["helo"] = _cut(addresses.words(printable(facts.helo)))
    return event | {
        "server": {"address": facts.server},
        "ended_by": facts.how,
        "commands": {verb: {"all": sent, "refused": refused} for verb, (sent, refused) in facts.commands.items()},
        "transactions": facts.transactions,
        "messages": facts.messages,
        "ms": {"total": round(facts.seconds * 1000)},
    }


def limit(who: Who, facts: LimitHit) -> dict[str, Any]:
    """The event of a limit that a client has reached, or of a locked client that was refused: once in a session."""
    return _begin("limit", who) | {"limit": _limit(facts)}


def lock(instance: str, client: str, reason: str, ended: str = "", **more: Any) -> dict[str, Any]:
    """The event of a lock that begins, or, with `ended` (time, administrator, configuration), ends. `client` is an
    address or a network, `reason` a directive or `administrator`.
    """
    begun = {"v": VERSION, "event": "unlock" if ended else "lock", "time": now(), "id": more.pop("id", "")}
    event = begun | {"instance": instance, "client": {"address": client}, "reason": reason}
    return event | ({"ended": ended} if ended else more)


def _limit(facts: LimitHit) -> dict[str, Any]:
    found: dict[str, Any] = {"name": facts.limit, "action": facts.action}
    return found | {name: value for name in ("value", "seconds", "until") if (value := getattr(facts, name))}


def text(who: Who, words: str) -> dict[str, Any]:
    """For the log: a line in words."""
    return _begin("text", who) | {"text": words}


def reply(wire: bytes, addresses: Addresses, known: list[bytes]) -> dict[str, Any]:
    """A reply: code, enhanced code (RFC 3463) if there is one, and text."""
    words = printable(wire)
    code, rest = int(wire[:3]), words[4:]
    enhanced = _ENHANCED.match(rest)
    if enhanced:
        rest = rest[enhanced.end() + 1 :]
    return {"code": code, "enhanced": enhanced[0] if enhanced else None, "text": _cut(addresses.words(rest, known))}


def encoded(event: dict[str, Any]) -> bytes:
    """The event as JSON in one line without its end, of less than OCTETS_MAX octets: values are cut until it fits."""
    data = _json(event)
    for length in (100, 30, 8):
        if len(data) < OCTETS_MAX:
            break
        data = _json(_shortened(event, length))
    return data


def _json(event: dict[str, Any]) -> bytes:
    return _ENCODER.encode(event).encode()


def _shortened(value: Any, length: int) -> Any:
    if isinstance(value, dict):
        return {key: _shortened(each, length) for key, each in value.items()}
    if isinstance(value, list):
        return [_shortened(each, length) for each in value]
    return value[:length] + "..." if isinstance(value, str) and len(value) > length else value


def now() -> str:
    """The time in UTC, as RFC 3339 writes it, with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _begin(kind: str, who: Who) -> dict[str, Any]:
    return {
        "v": VERSION,
        "event": kind,
        "time": now(),
        "id": who.trace_id,
        "instance": who.instance,
        "worker": who.worker,
        "client": {"address": who.client, "port": who.port},
    }


def _recipients(facts: Transaction, addresses: Addresses) -> dict[str, Any]:
    both = [*((address, 250) for address in facts.recipients), *facts.refused]
    told = [{"address": _cut(addresses.address(address)), "code": code} for address, code in both[:RECIPIENTS_MAX]]
    more = len(both) - len(told) + facts.refused_more
    return {"to": told} | ({"to_more": more} if more else {})


def _milliseconds(seconds: Seconds) -> dict[str, int]:
    known = ((name, getattr(seconds, name)) for name in ("connect", "client", "wait", "filter", "server", "total"))
    return {name: round(value * 1000) for name, value in known if value is not None}


def _cut(value: str) -> str:
    return value if len(value) <= TEXT_MAX else value[:TEXT_MAX] + "..."
