"""Reads a configuration file (proxsmtpd.conf(5)): from `Name: value` lines to Settings, or to all problems at once.

It is read as proxsmtpd 1.10 reads it. The case of names does not matter. White space at both ends of a line and around
the first colon is ignored, and so are comments and empty lines. Lines end with LF or CR LF. If a directive is given
twice, the last value is used (but values of `repeatable` kinds are joined). Bytes that are not UTF-8 stay unchanged in
commands and paths (surrogateescape), as in 1.10.

Diagnostics: ConfigError with the line and the fix of each problem; warnings for what is accepted but unusual.
"""

from __future__ import annotations

import codecs
import re
import zlib
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proxsmtp_tp.config import values
from proxsmtp_tp.config.chain_check import chain_problems, quarantine_problems
from proxsmtp_tp.config.directives.table import BY_NAME, DIRECTIVES
from proxsmtp_tp.config.settings import FilterMode, FilterType, Settings
from proxsmtp_tp.config.tls_check import tls_problems, tls_warnings
from proxsmtp_tp.config.values import INSTANCE_MAX, parse_instance

if TYPE_CHECKING:
    from proxsmtp_tp.config.directives.directive import Directive

_SPACE = " \t\v\f\r"  # isspace(3) in the C locale, without the newline
# 1.10 knows no comment after a value: it refuses the value, except where it may be any text (measured).
_COMMENT = re.compile(r"(?:^|[ \t,])(#.*)")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
# All directives with long lists need some kilobytes. A device or a mailbox, named by mistake, must not fill the memory.
_FILE_MAX = 1 << 20
# The set of servers of a client has 512 bits for two periods (net.client_table): with 1000 it is 5 % wrong.
_SERVERS_MAX = 500


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """An error or a warning. Line 0 means the whole file; `text` is one printable line."""

    line: int
    text: str

    def __str__(self) -> str:
        """The text with its line number, if it has one."""
        return f"line {self.line}: {self.text}" if self.line else self.text


class ConfigError(Exception):
    """The configuration cannot be used. `problems` holds all of them, by line.

    `exit_code` is 2, or 1 if the file exists but cannot be read.
    """

    def __init__(self, path: str, problems: list[Problem], exit_code: int = 2) -> None:
        self.path = path
        self.exit_code = exit_code
        self.problems = sorted(problems)
        super().__init__("\n".join(self.lines()))

    def lines(self) -> list[str]:
        """One line for each problem, `FILE:LINE: text`."""
        return [f"{printable(self.path)}:{f'{p.line}:' if p.line else ''} {p.text}" for p in self.problems]


@dataclass(frozen=True, slots=True)
class Configuration:
    """The settings of a valid file, and warnings about it."""

    settings: Settings
    warnings: tuple[Problem, ...] = ()


def read_config(path: str) -> Settings:
    """Read a file. Raises ConfigError (also for a file that cannot be read)."""
    return load_config(path).settings


def load_config(path: str) -> Configuration:
    """Read a file, with the warnings. Raises ConfigError."""
    return parse_config(_read(path), path)


def instance_in(path: str) -> str:
    """The name of the instance of a file, also if the file is missing or wrong: rules and daemon still have this
    name."""
    name = instance_name(path)
    with suppress(ConfigError):
        for line in _read(path).decode("utf-8", "replace").split("\n"):
            directive, _, text = line.partition(":")
            if directive.strip(_SPACE).lower() == "instance":
                with suppress(ValueError):
                    name = parse_instance(text.strip(_SPACE))
    return name


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:  # noqa: PTH123  (Path would turn an empty path into the current folder)
            return file.read(_FILE_MAX + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigError(
            path, [Problem(0, "configuration file not found: create it, or name another one with -f")]
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "the path contains a NUL"
        problem = Problem(0, f"the configuration file cannot be read: {reason}")
        raise ConfigError(path, [problem], exit_code=1) from None


def parse_config(data: bytes, path: str) -> Configuration:
    """Read the bytes of a file; `path` gives the name of the instance and appears in problems. Raises ConfigError."""
    parser = _Parser()
    if problem := _not_text(data):
        raise ConfigError(path, [problem])
    text = data.removeprefix(codecs.BOM_UTF8).decode("utf-8", "surrogateescape")
    for number, line in enumerate(text.split("\n"), 1):
        parser.feed(number, line.strip(_SPACE))
    parser.cross_check()
    if parser.problems:
        raise ConfigError(path, parser.problems)
    parser.values.setdefault("instance", instance_name(path))
    return Configuration(Settings(**parser.values), tuple(sorted(parser.warnings)))


def instance_name(path: str) -> str:
    """The name of a file's instance: the file name without its suffix, changed to a valid `Instance`.

    A name that must be changed gets a checksum at its end, so that two long names stay different.
    """
    stem = Path(path).stem
    fitting = re.sub(r"[^A-Za-z0-9_-]", "-", stem).lstrip("-")
    if fitting and fitting == stem and len(stem) <= INSTANCE_MAX:
        return stem
    checksum = f"{zlib.crc32(stem.encode('utf-8', 'surrogateescape')):08x}"
    return f"{fitting[: INSTANCE_MAX - 9]}-{checksum}".lstrip("-")


def printable(text: str) -> str:
    """One line of printable text: other characters are escaped, so that they cannot control a terminal or a log.

    No codec is needed that Python would have to load: the daemon's user may be unable to read the interpreter's files.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


class _Parser:
    """Collects values, problems and warnings, line by line."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.lines: dict[str, int] = {}
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []
        self.places: dict[str, int] = {}
        """`Name: value` of a directive that may repeat, and its line."""

    def feed(self, number: int, line: str) -> None:
        if not line or line.startswith("#"):
            return
        name, colon, text = line.partition(":")
        row = BY_NAME.get(name.strip(_SPACE).lower())
        if not colon:
            self._problem(number, f"{_short(line)}: no colon: write Name: value, or begin a comment with #")
        elif row is None:
            self._problem(number, _unknown(name.strip(_SPACE)))
        elif _CONTROL.search(text):
            self._problem(number, f"{row.name}: the value contains a control character: {_short(text)}")
        else:
            self._take(number, row, text.strip(_SPACE))

    def _take(self, number: int, row: Directive, text: str) -> None:
        comment = _COMMENT.search(text)
        try:
            if comment and not row.kind.free_text:
                raise ValueError(f"write the comment in a line of its own, before this one: {_short(comment[1])}")
            value = row.kind.parse(text)
        except ValueError as error:
            self._problem(number, f"{row.name}: {error}")
            self.lines[row.field] = number
            return
        if comment and row.kind in {values.PATH, values.REQUIRED_PATH, values.REQUIRED_TEXT}:
            self._warn(number, f"{row.name}: {_short(comment[1])} is part of the value, and no comment")
        if row.kind.repeatable:
            self.values[row.field] = tuple(dict.fromkeys((*self.values.get(row.field, ()), *value)))
            for each in value:
                self.places.setdefault(f"{row.name}: {each}:", number)
        else:
            if row.field in self.lines:
                before = self.lines[row.field]
                self._warn(number, f"{row.name}: given twice; the value of line {before} is ignored")
            self.values[row.field] = value
        self.lines[row.field] = number

    def cross_check(self) -> None:
        """Checks of several directives together. A directive that already has a problem is not checked."""
        settings = Settings(**self.values)
        if settings.out_address is None and not settings.transparent and self._fine("out_address", "transparent_proxy"):
            self._problem(0, "OutAddress: no address to send mail to: write one, or set TransparentProxy")
        if settings.out_address is not None and settings.transparent:
            self._warn(self.lines["out_address"], "OutAddress: ignored, because TransparentProxy is set")
        if settings.open_loopback and self._fine("clients", "listen"):
            self._warn(
                self.lines["out_address"],
                "OutAddress: a port alone makes this host connect back to any client: name your clients in Clients",
            )
        for symbol in sorted(set(re.findall(r"\\.|%.", settings.header or ""))):
            if symbol.startswith("%") and symbol not in {"%i", "%l", "%d", "%%"}:
                self._warn(
                    self.lines["header"], f"Header: {symbol} is no symbol and is left out; write %% for a percent sign"
                )
        if not settings.filter_reject.isascii():
            text = "FilterReject: a reply is ASCII (RFC 5321 section 4.2): other characters become question marks"
            self._warn(self.lines["filter_reject"], text)
        if settings.message_time_out > settings.session_time_out and self._fine("message_time_out", "session_time_out"):
            line = max(self.lines.get("message_time_out", 0), self.lines.get("session_time_out", 0))
            self._problem(line, "MessageTimeOut: longer than SessionTimeOut: lower it, or raise SessionTimeOut")
        self._check_filters(settings)
        self._check_client_limits(settings)
        self._check_tls(settings)

    def _check_tls(self, settings: Settings) -> None:
        if not self._fine("tls", "tls_wrapped", "upstream_tls", "rule_port", "out_address"):
            return
        for field, text in tls_problems(settings):
            self._problem(self._line_of(field, text), text)
        for field, text in tls_warnings(settings):
            self._warn(self._line_of(field, text), text)

    def _line_of(self, field: str, text: str) -> int:
        """The line that a text about a directive is about; of one that may repeat the text begins with the value."""
        found = (number for start, number in self.places.items() if text.startswith(start))
        return next(found, self.lines[field])

    def _check_filters(self, settings: Settings) -> None:
        if settings.filter_mode is FilterMode.MONITOR and self._fine("filter_command", "filter_type"):
            self._check_monitor(settings)
        if settings.filter_type is FilterType.SMTP and self._fine("filter_command") and not settings.filter:
            self._check_filter_address(settings)
        for text in chain_problems(settings):
            self._problem(self.lines["filter"], text)
        if self._fine("filter", "quarantine_directory"):
            for text in quarantine_problems(settings):
                self._problem(self.lines["keep_refused"], text)

    def _check_client_limits(self, settings: Settings) -> None:
        servers = settings.client_servers
        if servers is not None and max(servers.count, servers.burst) > _SERVERS_MAX:
            self._problem(
                self.lines["client_servers"], f"ClientServers: at most {_SERVERS_MAX}: more cannot be told apart"
            )
        if servers is not None and not settings.transparent and self._fine("transparent_proxy"):
            text = "ClientServers: without TransparentProxy all clients have one server: this limit does nothing"
            self._warn(self.lines["client_servers"], text)
        for limit in settings.lock_on:
            given = getattr(settings, limit.field)
            if given is None and self._fine(limit.field):
                self._problem(self.lines["lock_on"], f"LockOn: {limit.value} is off: nothing would lock: set it, too")
            elif given is not None and given.shadow:
                self._warn(self.lines["lock_on"], f"LockOn: {limit.value} is in shadow form: it does not lock")

    def _check_monitor(self, settings: Settings) -> None:
        line = self.lines["filter_mode"]
        if settings.filter_type is FilterType.REJECT:
            text = "FilterMode: monitor cannot pass what FilterType reject refuses: write another FilterType"
            self._problem(line, text)
        elif not settings.filtered:
            self._warn(line, "FilterMode: monitor has no effect without a filter (Filter or FilterCommand)")
        else:
            self._warn(line, "FilterMode: monitor: every message passes, whatever the filter says")

    def _check_filter_address(self, settings: Settings) -> None:
        line = self.lines.get("filter_command", self.lines["filter_type"])
        if settings.filter_command is None:
            self._problem(line, "FilterType: smtp needs the address of the scanner in FilterCommand")
            return
        try:
            _ = settings.filter_address
        except ValueError as error:
            self._problem(line, f"FilterCommand: FilterType smtp needs an address: {error}")

    def _fine(self, *fields: str) -> bool:
        return all(field in self.values or field not in self.lines for field in fields)

    def _problem(self, line: int, text: str) -> None:
        self.problems.append(Problem(line, printable(text)))

    def _warn(self, line: int, text: str) -> None:
        self.warnings.append(Problem(line, printable(text)))


def _not_text(data: bytes) -> Problem | None:
    if len(data) > _FILE_MAX:
        return Problem(0, f"the file is larger than {_FILE_MAX} bytes: this is no configuration file")
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return Problem(1, "the file is UTF-16: save it as UTF-8")
    if (nul := data.find(b"\0")) >= 0:
        return Problem(data.count(b"\n", 0, nul) + 1, "the line contains a NUL byte: this is no text file")
    return None


def _unknown(name: str) -> str:
    close = get_close_matches(name.lower(), BY_NAME, n=1)
    hint = f"; did you mean {BY_NAME[close[0]].name}?" if close else f"; proxsmtpd.conf(5) lists all {len(DIRECTIVES)}"
    return f"{_short(name)}: no such directive{hint}"


def _short(text: str) -> str:
    return text if len(text) <= 40 else text[:37] + "..."
