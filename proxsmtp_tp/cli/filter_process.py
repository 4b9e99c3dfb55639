"""The process in which try-filter runs the filter: a process of the daemon, or a child of this command.

A process that the daemon forks has everything that a worker has. If no daemon answers, a child of this command takes
the configured user, the root directory as working directory, and the unit's umask; the restrictions of the unit are
missing.
"""

from __future__ import annotations

import os
import secrets
import socket
import sys
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from io import BufferedRWPair
from typing import TYPE_CHECKING, Any

from proxsmtp_tp.config.reader import printable
from proxsmtp_tp.service import trial_link
from proxsmtp_tp.service.control import ControlError, ask
from proxsmtp_tp.service.privileges import PrivilegeError, drop_privileges
from proxsmtp_tp.service.status import control_path, find_sockets, instance_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import NoReturn

    from proxsmtp_tp.config.settings import Settings

SECONDS = 10.0
"""Seconds in which the daemon starts its process, on a busy host."""


class TrialError(Exception):
    """The filter cannot be tried: one line says why."""


@dataclass(slots=True)
class Place:
    """Where the filter runs: the link to the process, and notes on what differs from the daemon."""

    link: BufferedRWPair
    who: dict[str, Any]
    notes: list[str] = field(default_factory=list)

    def try_message(self, header: dict[str, Any], text: bytes) -> tuple[dict[str, Any], bytes]:
        """The answer about one message. Raises TrialError."""
        try:
            trial_link.send(self.link, header, text)
            answer = trial_link.receive(self.link)
        except (OSError, ValueError) as error:
            raise TrialError(f"the process of the filter has ended: {error}") from None
        if answer is None:
            raise TrialError("the process of the filter has ended")
        if "error" in answer[0]:
            raise TrialError(printable(str(answer[0]["error"])))
        return answer


@contextmanager
def place(settings: Settings) -> Iterator[Place]:
    """The process, until the end of the block. Raises TrialError."""
    sockets = [path for path in find_sockets() if instance_of(path) == settings.instance]
    connected, notes = _of_the_daemon(settings, sockets[0]) if sockets else (None, ["the daemon does not run"])
    child = 0
    if connected is None:
        connected, child = _of_our_own(settings)
        notes += _not_the_same(settings)
    connected.settimeout(trial_link.SECONDS + settings.filter_seconds)
    try:
        with connected, connected.makefile("rwb") as link:
            yield Place(link, _greeting(link), notes)
    finally:
        if child:
            os.waitpid(child, 0)


def _greeting(link: BufferedRWPair) -> dict[str, Any]:
    try:
        first = trial_link.receive(link)
    except (OSError, ValueError) as error:
        raise TrialError(f"the process of the filter does not start: {error}") from None
    if first is None or "error" in first[0]:
        why = printable(str(first[0]["error"])) if first else "it has ended"
        raise TrialError(f"the process of the filter does not start: {why}")
    return first[0]


def _of_the_daemon(settings: Settings, status: Path) -> tuple[socket.socket | None, list[str]]:
    """A link to a process of the daemon; None, with the reason, if the daemon starts none."""
    control = control_path(status)
    path = control.with_name(f"try-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        owner = control.stat().st_uid
        with socket.socket(socket.AF_UNIX) as listener:
            listener.settimeout(SECONDS)
            os.fchmod(listener.fileno(), 0o600)
            listener.bind(str(path))
            try:
                if owner != os.geteuid():
                    os.chown(path, owner, -1)
                listener.listen(1)
                ask(control, "try-filter", socket=path.name, seconds=settings.filter_seconds)
                connected, _ = listener.accept()
            finally:
                with suppress(OSError):
                    path.unlink()
    except (OSError, ControlError) as error:
        reason = getattr(error, "strerror", None) or str(error) or "no answer"
        return None, [f"the daemon does not try it ({reason})"]
    return connected, []


def _of_our_own(settings: Settings) -> tuple[socket.socket, int]:
    sys.stdout.flush()
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        ours.close()
        _child(settings, theirs)
    theirs.close()
    return ours, child


def _child(settings: Settings, connected: socket.socket) -> NoReturn:
    code = 1
    try:
        os.chdir("/")
        if os.geteuid() == 0:
            os.umask(0o077)
            drop_privileges(settings.user, net_raw=False)
        trial_link.serve(connected)
        code = 0
    except PrivilegeError as error:
        with connected.makefile("rwb") as link:
            trial_link.send(link, {"error": str(error)})
    except BaseException:  # noqa: BLE001  (the other side sees the end; this process must not go on as the command)
        code = 1
    finally:
        os._exit(code)


def _not_the_same(settings: Settings) -> list[str]:
    unit = f"proxsmtp-tp@{settings.instance}.service"
    return [f"not as in the daemon: restrictions, environment and private /tmp of {unit}; start it and try again"]
