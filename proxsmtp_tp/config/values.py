"""Kinds of values: from the text of the configuration file, and back to text.

Each kind has `parse` (raises ValueError with a text that says what to write instead), `show` (the text that
`parse` would accept) and `syntax` (for documentation). A list of a `repeatable` kind may be split over several lines.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any, TypeVar

from proxsmtp_tp.config.addresses import InetAddress, not_mapped, parse_address, parse_port
from proxsmtp_tp.config.filter_lines import parse_filter, show_filter
from proxsmtp_tp.config.parsing import one_of, whole_number
from proxsmtp_tp.config.rates import ClientLimit, parse_at_once, parse_lock_duration, parse_rate
from proxsmtp_tp.config.settings import LISTEN_PORT, SMTP_PORT, TransparentProxy
from proxsmtp_tp.config.tls_files import parse_certificate, parse_key_pair
from proxsmtp_tp.config.tls_lines import parse_tls, parse_upstream

if TYPE_CHECKING:
    from enum import Enum

    from proxsmtp_tp.config.addresses import Address
    from proxsmtp_tp.config.settings import Network

_T = TypeVar("_T")

# What 1.10 accepts (measured), in upper or lower case. It refuses `y` and `n`.
_TRUE = frozenset({"1", "on", "yes", "true", "t"})
_FALSE = frozenset({"0", "off", "no", "false", "f"})
# The largest time_t of 32 bits: 68 years. A larger number, which 1.10 accepts too, means no limit.
_SECONDS_MAX = 2**31 - 1
# if_nametoindex(3): IFNAMSIZ is 16 with the NUL. The kernel refuses `/`, `:` and white space
# (dev_valid_name).
_INTERFACE = re.compile(r"[^\s/:]{1,15}")
# Chain names of iptables have at most 28 characters (XT_EXTENSION_MAXNAMELEN - 1): ours are the instance with a prefix
# and a suffix.
INSTANCE_MAX = 16
_INSTANCE = re.compile(rf"[A-Za-z0-9_][A-Za-z0-9_-]{{0,{INSTANCE_MAX - 1}}}")


@dataclass(frozen=True, slots=True)
class Kind:
    """How the values of a directive are written."""

    syntax: str
    parse: Callable[[str], Any]
    show: Callable[[Any], str] = str
    repeatable: bool = False
    """Values of several lines are joined to one tuple. Otherwise the last line is used, as in 1.10."""
    free_text: bool = False
    """Any text: `#` is an ordinary character in it, as in 1.10."""


def parse_boolean(text: str) -> bool:
    """Read a switch, in upper or lower case."""
    if text.lower() in _TRUE | _FALSE:
        return text.lower() in _TRUE
    raise ValueError(f"{text!r} is neither on nor off (nor yes, no, true, false, 1, 0)")


def parse_text(text: str) -> str | None:
    """Read text; empty text is None."""
    return text or None


def parse_required_text(text: str) -> str:
    """Read text that must not be empty."""
    if not text:
        raise ValueError("the value is missing: write one, or remove the line")
    return text


def parse_hostname(text: str) -> str:
    """Read the name of a host."""
    if len(text) > 255 or not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?", text):
        raise ValueError(f"{text!r} is no name of a host: write a name such as gateway.example")
    return text


def parse_milter_macro(text: str) -> tuple[tuple[str, str], ...]:
    """Read NAME VALUE. The name gets braces if it has more than one character, as milters know it."""
    name, value = [*text.split(None, 1), "", ""][:2]
    plain = re.sub(r"\A\{(.*)\}\Z", r"\1", name)
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}", plain):
        raise ValueError(f"{name!r} is no name of a macro: write one such as daemon_name")
    if re.match(r"(mail|rcpt)_", plain):
        raise ValueError(f"{plain} is about each sender or recipient, and cannot be set")
    if not re.fullmatch(r"[ -~]{1,900}", value):
        raise ValueError(f"{plain}: write its value after the name: up to 900 printable ASCII characters")
    if wrong := re.search(r"%(?![ils%]).?", value.replace("%%", "")):
        raise ValueError(f"{plain}: {wrong[0]} is no placeholder: write %i, %l, %s, or %% for a percent sign")
    return ((plain if len(plain) == 1 else "{" + plain + "}", value),)


def parse_seconds(text: str) -> float:
    """Read a positive number of whole seconds."""
    digits = text.removeprefix("+").lstrip("0")
    if not re.fullmatch(r"[0-9]+", digits):
        raise ValueError(f"{text!r} is no time: write a whole number of seconds, 1 or more, without a unit")
    return min(int(digits[:11]), _SECONDS_MAX)


def parse_seconds_or_off(text: str) -> float:
    """Read whole seconds; 0 or empty text means off."""
    return 0 if re.fullmatch(r"\+?0*", text) else parse_seconds(text)


def parse_reply(text: str) -> str:
    """Read the reply that refuses mail: a 4xx or 5xx code and a text, or only a text (its code is then 550)."""
    if re.match(r"[0-9]{3}(?![0-9])", text) and not re.fullmatch(r"[45][0-9]{2}([ \t].*)?", text):
        raise ValueError(f"{text!r} does not refuse: write a code from 400 to 599, a space and a text")
    return text


def parse_quarantine_reply(text: str) -> str:
    """Read what a client gets for a message that is kept: it is accepted (2xx), or refused for good (5xx)."""
    if not re.fullmatch(r"[25][0-9]{2} [ -~]+", text):
        raise ValueError(f"{text!r} is no reply: write a code from 200 to 299 or 500 to 599, a space and ASCII text")
    return text


def parse_filter_names(text: str) -> tuple[str, ...]:
    """Read names of filters; `no` for none."""
    return () if text.lower() == "no" else _unique(_words(text))


def parse_skip(text: str) -> bool:
    """Read what is skipped: only the word `authenticated`, as in 1.10."""
    if text.lower() != "authenticated":
        raise ValueError(f"{text!r} cannot be skipped: write 'authenticated', or remove the line")
    return True


def parse_event_log(text: str) -> str:
    """Read where events go."""
    if text.lower() in {"off", "journal"}:
        return text.lower()
    if text.startswith(("/", "unix:/")):
        return text
    raise ValueError(f"{text!r} is no place for events: write off, journal, /path or unix:/path")


def parse_transparent_proxy(text: str) -> TransparentProxy:
    """Read off, client, full or a switch, whose `on` means client (as in 1.10)."""
    if text.lower() in {"client", "full"}:
        return TransparentProxy(text.lower())
    if text.lower() in _TRUE | _FALSE:
        return TransparentProxy.CLIENT if parse_boolean(text) else TransparentProxy.OFF
    raise ValueError(f"{text!r} is not one of off, client, full")


def parse_listen(text: str) -> tuple[Address, ...]:
    """Read one or more addresses to listen on."""
    without_blanks = re.sub(r":[ \t]+(?=\+?[0-9])", ":", text)  # between address and port, as 1.10 accepts them
    return _unique([parse_address(word, LISTEN_PORT) for word in _words(without_blanks)])


def parse_out_address(text: str) -> Address:
    """Read the address that mail goes to. 0.0.0.0 and :: mean the client, like a port alone (as in 1.10)."""
    address = parse_address(parse_required_text(text), SMTP_PORT)
    if isinstance(address, InetAddress) and address.host in {"0.0.0.0", "::"}:  # noqa: S104  (nobody listens here)
        return InetAddress("", address.port)
    return address


def parse_ports(text: str) -> tuple[int, ...]:
    """Read one or more ports."""
    return _unique([parse_port(word) for word in _words(text)])


def parse_networks(text: str) -> tuple[Network, ...]:
    """Read one or more networks or single addresses."""
    return _unique([not_mapped(_network(word)) for word in _words(text)])


def parse_interfaces(text: str) -> tuple[str, ...]:
    """Read one or more names of network interfaces."""
    for word in (words := _words(text)):
        if not _INTERFACE.fullmatch(word) or word in {".", ".."}:
            raise ValueError(f"{word!r} is no name of a network interface (`ip link` lists them)")
    return _unique(words)


def parse_instance(text: str) -> str:
    """Read the name of an instance."""
    if not _INSTANCE.fullmatch(text):
        raise ValueError(f"{text!r} is no name: up to {INSTANCE_MAX} of the letters A-Z a-z 0-9 _ and -")
    return text


def parse_limits(text: str) -> tuple[ClientLimit, ...]:
    """Read names of directives that limit a client, in upper or lower case."""
    by_name = {limit.value.lower(): limit for limit in ClientLimit}
    for word in (words := _words(text)):
        if word.lower() not in by_name:
            raise ValueError(f"{word!r} is not one of {', '.join(limit.value for limit in ClientLimit)}")
    return _unique([by_name[word.lower()] for word in words])


def integer(least: int, most: int) -> Kind:
    """Whole numbers in a range."""
    return Kind(f"{least}..{most}", whole_number(least, most))


def choice(values: type[Enum]) -> Kind:
    """One of several words, in upper or lower case."""
    return Kind("|".join(str(member.value) for member in values), one_of(values), lambda member: str(member.value))


def show_list(values: tuple[object, ...]) -> str:
    """Write a list."""
    return ", ".join(map(str, values))


def show_boolean(value: bool) -> str:
    """Write a switch."""
    return "on" if value else "off"


SWITCH = Kind("on|off", parse_boolean, show_boolean)
TEXT = Kind("text", parse_text, free_text=True)
REQUIRED_TEXT = Kind("text", parse_required_text, free_text=True)
HOSTNAME = Kind("name", parse_hostname)
MILTER_MACRO = Kind(
    "name value",
    parse_milter_macro,
    lambda macros: "; ".join(f"{name} {value}" for name, value in macros),
    repeatable=True,
    free_text=True,
)
PATH = Kind("path", parse_text, free_text=True)
REQUIRED_PATH = Kind("path", parse_required_text, free_text=True)
EVENT_LOG = Kind("off, journal, a path, or unix: and a path", parse_event_log)
SECONDS = Kind("seconds", parse_seconds)
SECONDS_OR_OFF = Kind("seconds, 0 for none", parse_seconds_or_off)
REPLY = Kind("reply", parse_reply, free_text=True)
QUARANTINE_REPLY = Kind("reply", parse_quarantine_reply, free_text=True)
FILTER_NAMES = Kind("name ...", parse_filter_names, show_list, repeatable=True)
SKIP = Kind("authenticated", parse_skip, lambda value: "authenticated" if value else "")
TRANSPARENT_PROXY = Kind("off|client|full", parse_transparent_proxy, lambda member: str(member.value))
LISTEN = Kind("address ...", parse_listen, show_list)
OUT_ADDRESS = Kind("address", parse_out_address)
PORT = Kind("port", parse_port)
PORTS = Kind("port ...", parse_ports, show_list, repeatable=True)
NETWORKS = Kind("network ...", parse_networks, show_list, repeatable=True)
INTERFACES = Kind("interface ...", parse_interfaces, show_list, repeatable=True)
INSTANCE = Kind("name", parse_instance)
RATE = Kind("number/time [burst number] [shadow]", parse_rate, lambda rate: "off" if rate is None else str(rate))
AT_ONCE = Kind("number [shadow]", parse_at_once, lambda value: "off" if value is None else str(value))
LIMITS = Kind(
    "directive ...", parse_limits, lambda limits: show_list(tuple(limit.value for limit in limits)), repeatable=True
)
FILTER = Kind(
    "name type address-or-command setting=value ...",
    parse_filter,
    lambda lines: "; ".join(map(show_filter, lines)),
    repeatable=True,
    free_text=True,
)
TLS = Kind("action condition=value ...", parse_tls, lambda rules: "; ".join(map(str, rules)), repeatable=True)
UPSTREAM_TLS = Kind(
    "level condition=value ...", parse_upstream, lambda rules: "; ".join(map(str, rules)), repeatable=True
)
TLS_CERTIFICATE = Kind(
    "certificate [key] [server=network,...]",
    parse_certificate,
    lambda lines: "; ".join(map(str, lines)),
    repeatable=True,
)
KEY_PAIR = Kind("certificate [key]", parse_key_pair)
LOCK_DURATION = Kind("duration", parse_lock_duration)


def _words(text: str) -> list[str]:
    words = re.split(r"[ \t]*,[ \t]*|[ \t]+", text)
    if not all(words):
        raise ValueError("a value is missing: separate the values with a comma or with spaces")
    return words


def _unique(values: list[_T]) -> tuple[_T, ...]:
    return tuple(dict.fromkeys(values))


def _network(text: str) -> Network:
    try:
        return ip_network(text)
    except ValueError:
        pass
    try:
        meant = ip_network(text, strict=False)
    except ValueError:
        raise ValueError(
            f"{text!r} is no network: write a network such as 192.0.2.0/24 or 2001:db8::/32, or an address"
        ) from None
    raise ValueError(f"{text!r} has bits set after its prefix: write {meant} for the whole network")
