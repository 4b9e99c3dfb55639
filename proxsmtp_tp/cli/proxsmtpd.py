"""proxsmtpd: the command line of proxsmtpd 1.10, unchanged (proxsmtpd(8)).

    proxsmtpd [-d level] [-f configfile] [-p pidfile]
    proxsmtpd -v

Texts and exit codes were measured with the original: 2 for usage and configuration, 1 for what the system refused (and
for a level that is no number). Without -d it becomes a daemon: the command ends when the daemon is ready (the original
ends before).
"""

from __future__ import annotations

import getopt
import re
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from proxsmtp_tp.cli.streams import open_standard_streams
from proxsmtp_tp.config.reader import ConfigError, load_config

if TYPE_CHECKING:
    from collections.abc import Sequence

NAME = "proxsmtpd"
DEFAULT_CONFIG = "/etc/proxsmtpd.conf"
USAGE = """\
usage: proxsmtpd [-d debuglevel] [-f configfile] [-p pidfile]
       proxsmtpd -v"""


@dataclass(slots=True)
class _Options:
    """The options of the command line. `level` None: become a daemon."""

    level: int | None = None
    config: str = DEFAULT_CONFIG
    pid_file: str | None = None


class _EarlyExitError(Exception):
    """The program ends before the daemon is started: print `lines`, and exit with `code`."""

    def __init__(self, code: int, *lines: str) -> None:
        self.code = code
        self.lines = lines
        super().__init__(*lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """The console script. Returns the exit code."""
    open_standard_streams()
    try:
        options = _parse(sys.argv[1:] if arguments is None else arguments)
        configuration = load_config(options.config)
    except _EarlyExitError as end:
        print(*end.lines, sep="\n", file=sys.stderr if end.code else sys.stdout)
        return end.code
    except ConfigError as error:
        for line in error.lines():
            print(f"{NAME}: {line}", file=sys.stderr)
        return error.exit_code
    from proxsmtp_tp.service.launch import Launch, launch  # noqa: PLC0415  (a wrong file is told without it)

    detach = options.level is None
    return launch(Launch(configuration, options.config, NAME, options.pid_file, options.level, detach))


def _parse(arguments: Sequence[str]) -> _Options:
    try:
        given, rest = getopt.gnu_getopt(list(arguments), "d:f:p:v")
    except getopt.GetoptError as error:
        what = "option requires an argument" if "requires" in error.msg else "invalid option"
        letter = error.opt if len(error.opt) == 1 else "-"  # of a long option, which getopt(3) does not know
        raise _EarlyExitError(2, f"{NAME}: {what} -- '{letter}'", USAGE) from None
    options = _Options()
    for option, value in given:
        if option == "-d":
            options.level = _level(value)
        elif option == "-f":
            options.config = value
        elif option == "-p":
            options.pid_file = value
        else:
            from proxsmtp_tp.service.version import VERSION  # noqa: PLC0415

            raise _EarlyExitError(0, f"proxsmtpd (version {VERSION})", f"          (config: {DEFAULT_CONFIG})")
    if rest:
        raise _EarlyExitError(2, USAGE)
    if options.level is not None and not 0 <= options.level <= 4:
        raise _EarlyExitError(2, f"{NAME}: invalid debug log level (must be between 1 and 4)")
    return options


def _level(text: str) -> int:
    """A level as strtol(3) reads it. The range is checked by the caller."""
    number = re.fullmatch(r"[ \t\n\v\f\r]*([+-]?)([0-9]*)", text)
    if number is None or (text and not number[2]):
        raise _EarlyExitError(1, f"{NAME}: invalid debug log level")
    return int(number[1] + (number[2].lstrip("0")[:10] or "0"))
