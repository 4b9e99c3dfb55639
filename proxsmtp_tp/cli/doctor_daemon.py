"""The status and the replies of the daemon, for `gateway.doctor`, which does not import the daemon's packages."""

from __future__ import annotations

import json
import re
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from proxsmtp_tp.filters import endings, scanner_endings
from proxsmtp_tp.service.commands import SESSIONS_MAX
from proxsmtp_tp.service.control import ControlError, ask
from proxsmtp_tp.service.status import control_path, find_sockets, instance_of, read_status
from proxsmtp_tp.service.unix_listener import read_answer
from proxsmtp_tp.smtp import answers
from proxsmtp_tp.smtp.replies import Reply

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FILTER_ASKER = "proxsmtp_tp.cli.filters_as_daemon"
"""The program that connects to filters and reports what they are."""

_ANNOUNCED_SECONDS = 10.0
"""Seconds in which the daemon accepts the connection: a step takes no longer."""
_ANNOUNCING_SECONDS = 1.0

_END_POINT = re.compile(r"\A\[?([0-9A-Fa-f.:]+?)\]?:[0-9]+\Z")  # `192.0.2.1:1024`, `[2001:db8::1]:1024`
_NO_CODE = "Content Rejected"  # a filter's refusal without a code of its own (filters.stderr)


def status_of(instance: str) -> dict[str, Any] | None:
    """The status of a running instance; None: it does not run, or does not answer us."""
    for path in find_sockets():
        if instance_of(path) == instance:
            try:
                answer = read_status(path)
            except PermissionError:
                return None
            if answer is not None:
                return answer | {"clients": _connections_by_client(path)}
    return None


def announce(instance: str, kind: str, number: int) -> None:
    """Let a running instance keep a connection of doctor out of its log and its counters (`findings.Setup.announce`).

    A daemon that cannot be told logs and counts the connection. Nothing waits for a daemon that hangs: the step finds
    that.
    """
    fields = {"command": "probe", "seconds": _ANNOUNCED_SECONDS, kind: number}
    for path in find_sockets():
        if instance_of(path) == instance:
            with suppress(OSError):
                read_answer(control_path(path), json.dumps(fields).encode() + b"\n", seconds=_ANNOUNCING_SECONDS)


def _connections_by_client(status: Path) -> dict[str, int]:
    """Connections by client; empty if the daemon does not answer."""
    try:
        answer = ask(control_path(status), "sessions", most=SESSIONS_MAX)
    except (ControlError, OSError):
        return {}
    return Counter(_END_POINT.sub(r"\1", str(session["client"])) for session in answer["sessions"])


def may_be_a_filters(reply: str) -> bool:
    """Whether a filter may have given this reply (`550 text`) with a code of its own: it is no reply of the proxy."""
    return f"{reply}\r\n".encode() not in set(_own_replies()) and not reply[4:].startswith(_NO_CODE)


def _own_replies() -> Iterator[bytes]:
    found = [value for value in vars(answers).values() if isinstance(value, Reply)]
    for reply in (*endings.REPLIES.values(), *scanner_endings.REPLIES.values(), *found):
        yield reply.wire
