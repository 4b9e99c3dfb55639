"""For commands that ask a running daemon at its control socket: finds the instance, and the error if none answers."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from proxsmtp_tp.cli.instances import InstanceError, choose, configured

if TYPE_CHECKING:
    import argparse
    from pathlib import Path


class NoAnswerError(Exception):
    """The command failed. `code` is the exit status; the text says what to do."""

    def __init__(self, text: str, code: int = 1) -> None:
        self.code = code
        super().__init__(text)


class NoDaemonError(NoAnswerError):
    """No daemon runs."""


def ask_daemon(args: argparse.Namespace, command: str, **fields: Any) -> dict[str, Any]:
    """The answer of the daemon that the options name. Raises NoAnswerError."""
    from proxsmtp_tp.service.control import ControlError, ask  # noqa: PLC0415  (not for --help)
    from proxsmtp_tp.service.status import control_path  # noqa: PLC0415

    status = status_socket(args)
    try:
        return ask(control_path(status), command, **fields)
    except ControlError as error:
        raise NoAnswerError(str(error)) from None
    except PermissionError:
        raise NoAnswerError("only root and the daemon's user may ask: try again with sudo") from None
    except (ConnectionRefusedError, FileNotFoundError):
        raise NoDaemonError(f"no daemon listens at {control_path(status)}: it was killed, or is older") from None
    except OSError as error:
        raise NoAnswerError(f"the daemon does not answer at {control_path(status)}: {error}") from None


def complain(error: NoAnswerError) -> int:
    """Print the error, and return the exit status."""
    print(error, file=sys.stderr)
    return error.code


def status_socket(args: argparse.Namespace) -> Path:
    """The status socket of the daemon that the options name. Raises NoAnswerError."""
    from proxsmtp_tp.service.status import find_sockets, instance_of  # noqa: PLC0415

    wanted = None  # without an option and a file in /etc/proxsmtp-tp: the only daemon that runs
    try:
        if args.file is not None or args.instance is not None or configured():
            wanted = choose(args.file, args.instance, file_needed=False).name
    except InstanceError as error:
        raise NoAnswerError(str(error), error.exit_code) from None
    found = {instance_of(path): path for path in find_sockets() if wanted in {None, instance_of(path)}}
    if not found:
        name = f"{wanted} " if wanted else ""
        raise NoDaemonError(f"no instance {name}runs: `systemctl start proxsmtp-tp@{wanted or 'NAME'}` starts it")
    if len(found) > 1:
        raise NoAnswerError(f"several instances run: add --instance NAME, one of {', '.join(sorted(found))}", 2)
    return next(iter(found.values()))
