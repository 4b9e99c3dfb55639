"""Commands of the control socket about limits and locks of clients: `limits`, `locks`, `explain`.

Values of a request are checked here: only root and the daemon's user can send one, but their program may have an error.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Protocol

from proxsmtp_tp.config.addresses import client_of_address
from proxsmtp_tp.net.client_limits import Keys, key_of, name_of
from proxsmtp_tp.net.client_table import WINDOW, WORDS
from proxsmtp_tp.net.limit_decision import locked, show_until, usage
from proxsmtp_tp.net.serving import turned_away
from proxsmtp_tp.net.simulation import RECIPIENT, SENDER, ClientState, Question, SimulatedLimits, simulate
from proxsmtp_tp.net.tls_rejections import client_of
from proxsmtp_tp.service.control import ControlError
from proxsmtp_tp.tls.policy import possible

if TYPE_CHECKING:
    from collections.abc import Mapping
    from ipaddress import IPv4Network, IPv6Network

    from proxsmtp_tp.config.filter_lines import FilterLine
    from proxsmtp_tp.config.settings import Settings
    from proxsmtp_tp.net.admission import Admission
    from proxsmtp_tp.net.client_table import ClientTable
    from proxsmtp_tp.net.tls_rejections import TlsRejections
    from proxsmtp_tp.service.bypass import Bypass
    from proxsmtp_tp.service.lock_book import Lock
    from proxsmtp_tp.service.locks import Locks

    Request = Mapping[str, Any]

TEXT_MAX = 200
"""Characters of a reason, which is part of a line of a list."""
_LONGEST = 10 * 366 * 86400
"""Seconds: to lock a client for longer, use the firewall."""
_SHOWN_MAX = 10_000
"""Locks in one answer, which then has two megabytes. The answer has the number of all locks, too."""


class Daemon(Protocol):
    """The part of the master that these commands use."""

    @property
    def locks(self) -> Locks:
        """Locks, and the table of clients."""

    @property
    def bypass(self) -> Bypass:
        """The bypass of the filter."""

    @property
    def admission(self) -> Admission:
        """The table of connections."""


def limits(daemon: Daemon, request: Request) -> Mapping[str, Any]:
    """`client`; `reset`: forget what it has used of its limits, and its earlier locks."""
    network = _client(daemon.locks, request)
    table, key = daemon.locks.table, key_of(network)
    if request.get("reset"):
        slot = table.find(key)
        if slot is not None:
            with table.changing(key):
                table.reset(slot)
        warning = daemon.locks.forget_repetition(name_of(network))
        return client_report(daemon.locks, network) | {"warning": warning}
    return client_report(daemon.locks, network)


def client_report(locks: Locks, network: IPv4Network | IPv6Network) -> dict[str, Any]:
    """What is known about a client."""
    table = locks.table
    slot = table.find(key_of(network))
    words = table.state(slot) if slot is not None else [0] * WORDS
    connections = table.connections(slot) if slot is not None else 0
    lock = locks.of(name_of(network))
    return {
        "client": name_of(network),
        "known": slot is not None,
        "connections": connections,
        "limits": usage(locks.settings, words, time.monotonic_ns(), connections),
        "lock": lock_report(lock) if lock is not None else None,
    }


def lock_report(lock: Lock) -> dict[str, Any]:
    """A lock, for people and programs."""
    return asdict(lock) | {"client": name_of(lock.network), "until_utc": show_until(lock.until)}


def locks(daemon: Daemon, request: Request) -> Mapping[str, Any]:
    """`add` or `remove`: a client; `seconds` and `text` for add. Nothing: list."""
    add, remove = request.get("add"), request.get("remove")
    try:
        if add is not None:
            lock, problem = daemon.locks.add(str(add), _seconds(request), _text(request))
            return {"locked": lock_report(lock), "warning": problem}
        if remove is not None:
            removed, problem = daemon.locks.remove(str(remove))
            return {"removed": lock_report(removed) if removed is not None else None, "warning": problem}
    except ValueError as error:
        raise ControlError(str(error)) from None
    active = daemon.locks.active()
    return {"locks": [lock_report(lock) for lock in active[:_SHOWN_MAX]], "number": len(active)}


def explain(daemon: Daemon, request: Request) -> Mapping[str, Any]:
    """`client`, `server` (IP addresses), `port`; `from`, `to` (addresses of mail)."""
    answer = explanation(daemon.locks.settings, request, daemon.locks, bypassed=daemon.bypass.active)
    answer |= {"tls_rejected": _rejected(daemon.admission.tls_rejections, request)}
    if not daemon.admission.would_enter(client_of_address(_address(request, "client"))):
        reply = turned_away(full=daemon.admission.full)
        answer |= {"answers": {"connection": reply.wire.decode().strip()}, "filter": None}
        answer["reasons"] = ["MaxConnections: no place for this client"]
    return answer


def _rejected(table: TlsRejections, request: Request) -> list[dict[str, Any]]:
    """The server names with which this client's TLS to this server passes, because it rejected our certificate."""
    wanted = (client_of(_address(request, "client")), _address(request, "server"), _port(request))
    return [{"name": entry.name, "seconds": round(left)} for entry, left in table.entries() if entry[:3] == wanted]


def explanation(
    settings: Settings, request: Request, locks: Locks | None = None, *, bypassed: bool = False
) -> dict[str, Any]:
    """What the daemon would answer the client. Without `locks`: a daemon that has just started for the first time."""
    client, server = _address(request, "client"), _address(request, "server")
    envelope = (str(request.get("from", SENDER)), str(request.get("to", RECIPIENT)))
    if any(character in text for text in envelope for character in "\r\n"):
        raise ControlError("an address of mail is one line")
    state = client_state(settings, client, server, locks.table if locks is not None else None)
    shown = None
    if state is not None:
        lock = locked(state.words, state.wall, state.client, settings.lock_reply)
        shown = {
            "client": state.client,
            "limits": usage(settings, state.words, state.now, state.connections),
            "lock": {"until": lock.until, "reason": lock.reason} if lock is not None else None,
        }
    question = Question(client, server, *envelope, bypassed=bypassed, port=_port(request))
    tls = possible(settings.tls, client, server, question.port)
    played = simulate(settings, question, SimulatedLimits(settings, state))
    filtering: dict[str, Any] = {
        "type": settings.filter_type.value,
        "command": settings.filter_command,
        "mode": settings.filter_mode.value,
    }
    if settings.filter:
        filtering["chain"] = [line.name for line in settings.filter]
        filtering["filters"] = [filter_report(line, client) for line in settings.filter]
    return {
        "counted": shown,
        "tls": [{"action": each.action.value, "rule": each.rule} for each in tls.decisions],
        "answers": played.answers,
        "reasons": played.reasons,
        "filter": filtering if played.filtered else None,
        "bypassed": bypassed,
    }


def filter_report(line: FilterLine, client: str) -> dict[str, Any]:
    """What a filter of the chain does with the messages of a client. `skipped`: it does not get them, or not if the
    client logs in (`skipped_authenticated`).
    """
    return {
        "name": line.name,
        "type": line.type.value,
        "mode": line.mode.value,
        "failure": line.failure.value,
        "skipped": line.skips(client, authenticated=False),
        "skipped_authenticated": line.skips(client, authenticated=True),
    }


def client_state(settings: Settings, client: str, server: str, table: ClientTable | None) -> ClientState | None:
    """A copy of what is known of a client; None: it has no limits, or there is no space to count for it."""
    network = Keys(settings).network(client)
    if network is None:
        return None
    words, servers, bit, connections = [0] * WORDS, ([0] * WINDOW, [0] * WINDOW), 0, 0
    if table is not None:
        key = key_of(network)
        bit = table.server_bit(server)
        slot = table.find(key)
        if slot is not None:
            words, servers, connections = table.state(slot), table.servers(slot), table.connections(slot)
        elif not table.has_space(key):
            return None
    return ClientState(name_of(network), words, servers, bit, time.monotonic_ns(), time.time(), connections)


def _client(locks: Locks, request: Request) -> IPv4Network | IPv6Network:
    try:
        return locks.network(str(request.get("client", "")))
    except ValueError as error:
        raise ControlError(str(error)) from None


def _address(request: Request, name: str) -> str:
    try:
        return str(ip_address(str(request.get(name, ""))))
    except ValueError:
        raise ControlError(f"{request.get(name)!r} is no IP address") from None


def _port(request: Request) -> int:
    port = request.get("port", 25)
    if type(port) is not int or not 0 < port < 65536:
        raise ControlError(f"{port!r} is no port")
    return port


def _seconds(request: Request) -> int | None:
    seconds = request.get("seconds")
    if seconds is not None and (type(seconds) is not int or not 0 < seconds <= _LONGEST):
        raise ControlError(f"{seconds!r} is no time: write seconds, 1 to {_LONGEST} (10 years)")
    return seconds


def _text(request: Request) -> str:
    text = str(request.get("text", ""))
    if len(text) > TEXT_MAX or not text.isprintable():
        raise ControlError(f"a reason is one line of at most {TEXT_MAX} characters")
    return text
