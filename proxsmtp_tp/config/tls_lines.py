"""The directives Tls and UpstreamTls: an action or a level with its conditions, from text and back."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import TYPE_CHECKING, Any, Final, TypeVar

from proxsmtp_tp.config.addresses import not_mapped, parse_port

if TYPE_CHECKING:
    from collections.abc import Callable

Network = IPv4Network | IPv6Network

NO_NAME: Final = "none"
"""The pattern of a ClientHello without a server name. A mail server's name has a dot."""

SUBMISSION_PORTS: Final = (465, 587)
"""Ports of message submission (RFC 6409, RFC 8314): people's passwords pass there."""


class TlsAction(Enum):
    """What is done when a client asks for TLS."""

    TERMINATE = "terminate"
    PASS = "pass"  # noqa: S105  (no password)
    STRIP = "strip"
    REFUSE = "refuse"


class TlsLevel(Enum):
    """What the server's leg must have, from the weakest to the strongest (postconf(5) smtp_tls_security_level)."""

    MAY = "may"
    ENCRYPT = "encrypt"
    DANE = "dane"
    VERIFY = "verify"
    SECURE = "secure"


@dataclass(frozen=True, slots=True)
class TlsRule:
    """One line `Tls:`. An empty condition is true for every connection."""

    action: TlsAction
    clients: tuple[Network, ...] = ()
    servers: tuple[Network, ...] = ()
    ports: tuple[int, ...] = ()
    """Ports of the server."""
    names: tuple[str, ...] = ()
    """Patterns of the server name in the client's hello, in lower case: `mx.example`, `*.example`, NO_NAME."""
    submission: bool = False
    """STRIP is meant for ports of submission, too."""

    def __str__(self) -> str:
        """As the configuration file writes it."""
        return show_tls(self)


@dataclass(frozen=True, slots=True)
class UpstreamRule:
    """One line `UpstreamTls:`. An empty condition is true for every server."""

    level: TlsLevel
    servers: tuple[Network, ...] = ()
    ports: tuple[int, ...] = ()
    match: tuple[str, ...] = ()
    """Names that the server's certificate may have, in lower case, in place of the name in the client's hello;
    `*.example`: any name with one label more."""
    server_name: str = ""
    """The name in our hello if the client gave none; "": the first of `match` without a `*`."""

    def __str__(self) -> str:
        """As the configuration file writes it."""
        return show_upstream(self)


def parse_tls(text: str) -> tuple[TlsRule, ...]:
    """Read one line `Tls:`. Raises ValueError with all its problems."""
    word, *rest = text.split() or [""]
    submission = "submission" in map(str.lower, rest)
    action, given, problems = _read(word, [each for each in rest if each.lower() != "submission"], TlsAction, _OF_TLS)
    if submission and action is not TlsAction.STRIP:
        problems.append("submission: only strip has this word")
    if "names" in given and action is TlsAction.STRIP:
        problems.append("name: not with strip: the name is known only after STARTTLS was offered")
    if problems or action is None:
        raise ValueError("; ".join(problems))
    return (TlsRule(action, **given, submission=submission),)


def parse_upstream(text: str) -> tuple[UpstreamRule, ...]:
    """Read one line `UpstreamTls:`. Raises ValueError with all its problems."""
    word, *rest = text.split() or [""]
    level, given, problems = _read(word, rest, TlsLevel, _OF_UPSTREAM)
    if level is TlsLevel.SECURE and not problems and "match" not in given:
        problems.append("secure: write the names that the certificate may have: match=mx.example")
    if "match" in given and level not in {TlsLevel.VERIFY, TlsLevel.SECURE}:
        problems.append("match: only verify and secure compare names")
    if problems or level is None:
        raise ValueError("; ".join(problems))
    return (UpstreamRule(level, **given),)


_Word = TypeVar("_Word", bound=Enum)


def _read(
    word: str, rest: list[str], words: type[_Word], settings: dict[str, tuple[str, Callable[[str], object]]]
) -> tuple[_Word | None, dict[str, Any], list[str]]:
    """The first word, the fields of the settings after it, and what is wrong with them."""
    problems = []
    given: dict[str, Any] = {}
    first = next((member for member in words if member.value == word.lower()), None)
    if first is None:
        problems.append(f"{word!r} is not one of {', '.join(member.value for member in words)}")
    for setting in rest:
        name, equals, value = setting.partition("=")
        if not equals or name.lower() not in settings:
            known = ", ".join(f"{known}=" for known in settings)
            problems.append(f"{setting!r} is none of {known}: separate the values of one with commas, without blanks")
            continue
        field, parse = settings[name.lower()]
        if field in given:
            problems.append(f"{name}: given twice: separate its values with commas")
        try:
            given[field] = parse(value)
        except ValueError as error:
            problems.append(f"{name}: {error}")
    return first, given, problems


# Values.


def networks_of(text: str) -> tuple[Network, ...]:
    """Networks or addresses, separated by commas. Raises ValueError."""
    found = []
    for word in text.split(","):
        try:
            found.append(ip_network(word))
        except ValueError:
            raise ValueError(
                f"{word!r} is no network: write one such as 192.0.2.0/24 or 2001:db8::/32, or an address"
            ) from None
    return tuple(dict.fromkeys(map(not_mapped, found)))


def ports_of(text: str) -> tuple[int, ...]:
    """Ports, separated by commas. Raises ValueError."""
    return tuple(dict.fromkeys(map(parse_port, text.split(","))))


_LABEL: Final = "[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST: Final = re.compile(rf"{_LABEL}(\.{_LABEL})+")
_PATTERN: Final = re.compile(rf"(\*\.)?{_LABEL}(\.{_LABEL})*")


def _host(text: str) -> str:
    name = text.lower().removesuffix(".")
    if len(name) > 253 or not _HOST.fullmatch(name) or name.rpartition(".")[2].isdecimal():
        raise ValueError(f"{text!r} is no name of a server: write one such as mx.example.org")
    return name


def _patterns(text: str) -> tuple[str, ...]:
    found = []
    for word in text.split(","):
        pattern = word.lower().removesuffix(".")
        if len(pattern) > 253 or not _PATTERN.fullmatch(pattern) or pattern.rpartition(".")[2].isdecimal():
            raise ValueError(f"{word!r} is no pattern: write mx.example.org, *.example.org, or none for no name")
        found.append(pattern)
    return tuple(dict.fromkeys(found))


def _certificate_names(text: str) -> tuple[str, ...]:
    found = _patterns(text)
    if NO_NAME in found:
        raise ValueError(f"{NO_NAME} is no name of a certificate")
    return found


_OF_TLS: Final[dict[str, tuple[str, Callable[[str], object]]]] = {
    "client": ("clients", networks_of),
    "server": ("servers", networks_of),
    "port": ("ports", ports_of),
    "name": ("names", _patterns),
}
_OF_UPSTREAM: Final[dict[str, tuple[str, Callable[[str], object]]]] = {
    "server": ("servers", networks_of),
    "port": ("ports", ports_of),
    "match": ("match", _certificate_names),
    "sni": ("server_name", _host),
}


# Back to text.


def show_tls(rule: TlsRule) -> str:
    """The text that `parse_tls` reads."""
    word = f"{rule.action.value} submission" if rule.submission else rule.action.value
    return _shown(word, client=rule.clients, server=rule.servers, port=rule.ports, name=rule.names)


def show_upstream(rule: UpstreamRule) -> str:
    """The text that `parse_upstream` reads."""
    sni = (rule.server_name,) if rule.server_name else ()
    return _shown(rule.level.value, server=rule.servers, port=rule.ports, match=rule.match, sni=sni)


def _shown(word: str, **settings: tuple[object, ...]) -> str:
    return " ".join(
        [word, *(f"{name}={','.join(map(show_value, given))}" for name, given in settings.items() if given)]
    )


def show_value(value: object) -> str:
    single = isinstance(value, IPv4Network | IPv6Network) and value.num_addresses == 1
    return str(value).partition("/")[0] if single else str(value)
