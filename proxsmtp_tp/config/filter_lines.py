"""The directive Filter: one filter of the chain, `NAME TYPE ADDRESS-OR-COMMAND [setting=value ..]`."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from enum import Enum
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, Any, Final

from proxsmtp_tp.config.addresses import Address, InetAddress, UnixAddress, not_mapped, parse_address, parse_port
from proxsmtp_tp.config.parsing import one_of, whole_number

if TYPE_CHECKING:
    from collections.abc import Callable

TIMEOUTS_LIMIT = 540.0
"""Seconds that all filters of a chain may take together: the client waits 10 minutes for the reply to its final dot
(RFC 5321 section 4.5.3.2.6), and sends the message again after that."""

CHAIN_LIMIT = 32
"""Filters in a chain: the line of a message in the log names all of them."""

PLACES_LIMIT = 10_000
"""The largest `max`. No scanner judges more messages at once, and the table of places has 65536 (`filters.places`)."""


class MemberType(Enum):
    """How a filter of the chain is asked."""

    PIPE = "pipe"
    FILE = "file"
    SMTP = "smtp"
    MILTER = "milter"
    CLAMD = "clamd"
    SPAMD = "spamd"
    RSPAMD = "rspamd"
    WORKER = "worker"


class Failure(Enum):
    """What happens to a message that the filter did not judge."""

    TEMPFAIL = "tempfail"
    REJECT = "reject"
    PASS = "pass"  # noqa: S105  (no password)
    QUARANTINE = "quarantine"


class Mode(Enum):
    """ENFORCE a refusal; or TAG the message with it; or only log it (SHADOW)."""

    ENFORCE = "enforce"
    TAG = "tag"
    SHADOW = "shadow"


class Oversize(Enum):
    """What happens to a message above `limit`, which the filter does not get."""

    REJECT = "reject"
    TEMPFAIL = "tempfail"
    PASS = "pass"  # noqa: S105  (no password)


class EditKind(Enum):
    """What a filter may change."""

    HEADERS = "headers"
    BODY = "body"
    SENDER = "sender"
    RECIPIENTS = "recipients"


COMMANDS: Final = frozenset({MemberType.PIPE, MemberType.FILE, MemberType.WORKER})
"""Types with a command in place of an address."""

_DEFAULT_PORTS: Final = {
    MemberType.SMTP: 25,
    MemberType.CLAMD: 3310,
    MemberType.SPAMD: 783,
    MemberType.RSPAMD: 11333,
}
"""clamd.conf(5) TCPSocket, spamd(1) --port, rspamd's normal worker. A milter has no usual port."""


@dataclass(frozen=True, slots=True)
class FilterLine:
    """One line `Filter:`. Times are in seconds, sizes in octets."""

    name: str
    type: MemberType
    command: str = ""
    """The shell command, for the types in COMMANDS."""
    addresses: tuple[Address, ...] = ()
    """For the other types. If one address cannot be connected to, the next one is used."""
    connect: float = 5.0
    """To connect to one address."""
    timeout: float = 30.0
    """For the verdict, with the time to connect. For a command it starts again with each piece that the command
    reads."""
    failure: Failure = Failure.TEMPFAIL
    max: int = 16
    """Messages at this filter at once, in all workers together."""
    wait: float = 10.0
    """How long a message may wait for a place among `max`."""
    mode: Mode = Mode.ENFORCE
    limit: int = 0
    """The largest message that the filter gets; 0: any."""
    oversize: Oversize = Oversize.REJECT
    skip: tuple[IPv4Network | IPv6Network, ...] = ()
    """Clients whose messages this filter does not get."""
    skip_authenticated: bool = False
    edits: frozenset[EditKind] = frozenset(EditKind)
    # spamd
    reject: float | None = None
    """The least score that refuses a message; None: never."""
    # spamd, rspamd
    user: str = ""
    # rspamd
    settings_id: str = ""
    tag: str = ""
    # worker
    min: int = 1
    """Processes that stay without messages."""
    idle: float = 300.0
    """A process above `min` ends after this time without a message."""
    requests: int = 500
    """A process is replaced after this number of messages."""
    lifetime: float = 3600.0
    """A process is replaced after this time."""
    memory: int = 0
    """The largest address space of a process (RLIMIT_AS of setrlimit(2)); 0: any."""
    start: float = 10.0
    """A new process must be ready within this time."""

    def skips(self, client: str, *, authenticated: bool) -> bool:
        """Whether this filter does not get the messages of a client (IP address; "": by a unix socket)."""
        if authenticated and self.skip_authenticated:
            return True
        return bool(self.skip and client) and any(ip_address(client) in network for network in self.skip)

    def __str__(self) -> str:
        """As the configuration file writes it, without what is the default."""
        return show_filter(self)


def parse_filter(text: str) -> tuple[FilterLine, ...]:
    """Read one line. Raises ValueError with all its problems."""
    words = text.split(None, 2)
    if len(words) < 3:
        raise ValueError(f"{text!r} is no filter: write NAME TYPE ADDRESS-OR-COMMAND [setting=value ..]")
    name, word, rest = words
    problems = []
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]{0,31}", name):
        problems.append(f"{name!r} is no name: up to 32 of the letters A-Z a-z 0-9 and -")
    try:
        kind = MemberType(word.lower())
    except ValueError:
        problems.append(f"{word!r} is not one of {', '.join(member.value for member in MemberType)}")
        raise ValueError("; ".join(problems)) from None
    target, settings = _split(rest)
    given: dict[str, Any] = {}
    if not target:
        problems.append("there is no command" if kind in COMMANDS else "there is no address")
    elif kind in COMMANDS:
        given["command"] = target
    else:
        try:
            given["addresses"] = _addresses(target, kind)
        except ValueError as error:
            problems.append(str(error))
    for setting, value in settings:
        try:
            given |= _setting(kind, setting, value)
        except ValueError as error:
            problems.append(f"{setting}: {error}")
    if problems:
        raise ValueError("; ".join(problems))
    given.setdefault("limit", _CLAMD_LIMIT if kind is MemberType.CLAMD else 0)
    return (FilterLine(name, kind, **given),)


_CLAMD_LIMIT = 100 << 20
"""StreamMaxLength of clamd 1.0 and later (clamd.conf(5)): it refuses larger messages."""


_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"((?:[ \t]+[a-z][a-z-]*=\S*)*)[ \t]*')
_TRAILING = re.compile(r"(?:^|[ \t]+)([a-z][a-z-]*)=(\S*)[ \t]*\Z")


def _split(rest: str) -> tuple[str, list[tuple[str, str]]]:
    """The address or command, and the settings at its end. A command in quotes may end with words like settings."""
    settings: list[tuple[str, str]] = []
    quoted = _QUOTED.fullmatch(rest)
    if quoted:
        words = [word.partition("=") for word in quoted[2].split()]
        return re.sub(r"\\(.)", r"\1", quoted[1]), [(name, value) for name, _, value in words]
    while found := _TRAILING.search(rest):
        settings.insert(0, (found[1], found[2]))
        rest = rest[: found.start()]
    return rest.strip(), settings


# Addresses.


def _addresses(text: str, kind: MemberType) -> tuple[Address, ...]:
    found = []
    for word in text.split(","):
        if not word or re.search(r"\s", word):
            raise ValueError(f"{text!r} is no list of addresses: separate them with commas, without blanks")
        found.append(_address(word, kind))
    return tuple(dict.fromkeys(found))


def _address(word: str, kind: MemberType) -> Address:
    scheme, colon, rest = word.partition(":")
    if colon and scheme in {"unix", "local"} and rest.startswith("/"):
        return UnixAddress(rest)
    if colon and scheme in {"inet", "inet6"}:  # milter: inet:port@host
        port, at, host = rest.partition("@")
        if not at:
            raise ValueError(f"{word!r} is no address: write inet:port@host, or host:port")
        host = host.removeprefix("[").removesuffix("]")
        return parse_address(f"[{host}]:{parse_port(port)}" if ":" in host else f"{host}:{parse_port(port)}", 0)
    if colon and scheme == "http" and kind is MemberType.RSPAMD and rest.startswith("//"):
        word = rest[2:].removesuffix("/")
    return _usual_address(word, kind)


def _usual_address(word: str, kind: MemberType) -> Address:
    default = _DEFAULT_PORTS.get(kind, 0)
    address = parse_address(word, default)
    if isinstance(address, InetAddress):
        if not address.port:
            raise ValueError(f"{word!r} has no port: write host:port")
        if address.port_only:
            return InetAddress("127.0.0.1", address.port)
    return address


# Settings.


def _seconds(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,4}(\.[0-9]{1,3})?", text) or not 0 < float(text) <= 3600:
        raise ValueError(f"{text!r} is no time: write seconds, more than 0 and at most 3600")
    return float(text)


def _size(text: str) -> int:
    found = re.fullmatch(r"([0-9]{1,12})([KMG]?)", text.upper())
    if found is None:
        raise ValueError(f"{text!r} is no size: write octets, or a number and K, M or G")
    return int(found[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[found[2]]


def _score(text: str) -> float:
    if not re.fullmatch(r"-?[0-9]{1,6}(\.[0-9]{1,6})?", text):
        raise ValueError(f"{text!r} is no score: write a number such as 8.5")
    return float(text)


def _word(text: str) -> str:
    if not re.fullmatch(r"[!-~]{1,255}", text):
        raise ValueError(f"{text!r} is not up to 255 printable ASCII characters")
    return text


def _edits(text: str) -> frozenset[EditKind]:
    if text.lower() == "none":
        return frozenset()
    kinds = {kind.value: kind for kind in EditKind}
    words = text.lower().split(",")
    if wrong := [word for word in words if word not in kinds]:
        raise ValueError(f"{wrong[0]!r} is not one of {', '.join(kinds)}, none")
    return frozenset(kinds[word] for word in words)


def _skip(text: str) -> dict[str, Any]:
    networks = []
    authenticated = False
    for word in text.split(","):
        if word.lower() == "authenticated":
            authenticated = True
            continue
        try:
            networks.append(ip_network(word))
        except ValueError:
            raise ValueError(f"{word!r} is neither authenticated nor a network such as 192.0.2.0/24") from None
    return {"skip": tuple(map(not_mapped, networks)), "skip_authenticated": authenticated}


_COMMON: Final[dict[str, Callable[[str], Any]]] = {
    "timeout": _seconds,
    "failure": one_of(Failure),
    "max": whole_number(1, PLACES_LIMIT),
    "wait": _seconds,
    "mode": one_of(Mode),
    "limit": _size,
    "oversize": one_of(Oversize),
    "skip": _skip,
    "edits": _edits,
}
_OF_SOCKETS: Final[dict[str, Callable[[str], Any]]] = {"connect": _seconds}
_OF_TYPE: Final[dict[MemberType, dict[str, Callable[[str], Any]]]] = {
    MemberType.SPAMD: {"reject": _score, "user": _word},
    MemberType.RSPAMD: {"settings-id": _word, "user": _word, "tag": _word},
    MemberType.WORKER: {
        "min": whole_number(0, 1000),
        "idle": _seconds,
        "requests": whole_number(1, 10**9),
        "lifetime": whole_number(1, 10**9),
        "memory": _size,
        "start": _seconds,
    },
}


def settings_of(kind: MemberType) -> dict[str, Callable[[str], Any]]:
    """The settings that a type has."""
    return _COMMON | ({} if kind in COMMANDS else _OF_SOCKETS) | _OF_TYPE.get(kind, {})


def _setting(kind: MemberType, name: str, text: str) -> dict[str, Any]:
    parse = settings_of(kind).get(name)
    if parse is None:
        known = ", ".join(sorted(settings_of(kind)))
        quote = " (a part of the command: write the command in quotes)" if kind in COMMANDS else ""
        raise ValueError(f"type {kind.value} has no such setting{quote}; it has {known}")
    value = parse(text)
    return value if isinstance(value, dict) else {name.replace("-", "_"): value}


# Back to text.


def show_filter(line: FilterLine) -> str:
    """The text that `parse_filter` reads."""
    target = line.command or ",".join(map(str, line.addresses))
    if line.command and (_TRAILING.search(target) or _QUOTED.fullmatch(target)):
        target = '"' + re.sub(r'(["\\])', r"\\\1", target) + '"'
    words = [line.name, line.type.value, target]
    for field in fields(FilterLine):
        value = getattr(line, field.name)
        if field.name in _SHOWN_APART or value == field.default:
            continue
        if not (field.name == "limit" and line.type is MemberType.CLAMD and value == _CLAMD_LIMIT):
            words.append(f"{field.name.replace('_', '-')}={_shown(value)}")
    if line.skip or line.skip_authenticated:
        skipped = (["authenticated"] if line.skip_authenticated else []) + [str(network) for network in line.skip]
        words.append(f"skip={','.join(skipped)}")
    return " ".join(words)


_SHOWN_APART = frozenset({"name", "type", "command", "addresses", "skip", "skip_authenticated"})


def _shown(value: object) -> str:
    if isinstance(value, frozenset):
        return ",".join(sorted(kind.value for kind in value)) or "none"
    if isinstance(value, Enum):
        return str(value.value)
    return f"{value:g}" if isinstance(value, float) else str(value)
