"""The control socket of the master: one request and one answer in a connection, each one JSON object in a line.

A request is {"command": NAME, ..}. An answer is what the command returns, or {"error": TEXT}. Only root and the
daemon's user may ask: the socket has mode 0600, and the kernel names the peer (unix(7), SO_PEERCRED). Each change is
logged with the peer's uid. The commands are in `commands`.

The master never waits: it reads and writes only what is possible at once. A client has SECONDS for request and answer.
"""

from __future__ import annotations

import json
import logging
import os
import select
import socket
import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from proxsmtp_tp.service.logging import NOTICE
from proxsmtp_tp.service.unix_listener import SECONDS, UnixListener, read_answer

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger(__name__)

CLIENTS_MAX = 16
"""Clients at once. Further ones wait in the socket's queue, at most SECONDS long."""
REQUEST_MAX = 65536
"""Octets: the longest request names a handful of networks or a reason."""
_MODE = 0o600
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid: struct ucred (unix(7))


class ControlError(Exception):
    """The command cannot be carried out. The text is one line for the administrator, and says what to do."""


@dataclass(frozen=True, slots=True)
class Command:
    """`run` gets the request and returns the answer. `changes` says whether this request changes something."""

    run: Callable[[Mapping[str, Any]], Mapping[str, Any]]
    changes: Callable[[Mapping[str, Any]], bool] = lambda _request: True


class ControlSocket(UnixListener):
    """The daemon's side of the socket. `path` None: there is no folder for the socket, so it is not made."""

    def __init__(self, path: Path | None) -> None:
        super().__init__()
        self.path = path
        self.commands: dict[str, Command] = {}
        self._clients: dict[int, _Client] = {}
        if path is None:
            return
        try:
            self.replace(path, _MODE, CLIENTS_MAX)  # the status socket is ours, so this name is, too
        except OSError as error:
            log.info("no control at %s: %s", path, error.strerror or error)

    def register(self, poll: select.poll) -> None:
        """Register the descriptors of the socket and its clients."""
        listener = self.fileno()
        if listener is not None and len(self._clients) < CLIENTS_MAX:
            poll.register(listener, select.POLLIN)
        for descriptor, client in self._clients.items():
            poll.register(descriptor, select.POLLOUT if client.answer else select.POLLIN)

    def due(self) -> float:
        """When `step` must be called at the latest, on the monotonic clock."""
        return min((client.end for client in self._clients.values()), default=float("inf"))

    def step(self, descriptor: int = -1) -> None:
        """Do what is possible with this descriptor, and drop the clients whose time has passed."""
        if descriptor == self.fileno():
            self._welcome()
        elif descriptor in self._clients:
            self._serve(self._clients[descriptor])
        now = time.monotonic()
        for client in [client for client in self._clients.values() if now >= client.end]:
            self._drop(client)

    def close(self, remove: bool = False) -> None:
        """Close; `remove` is for the master at its end."""
        for client in list(self._clients.values()):
            self._drop(client)
        super().close(remove)

    def _welcome(self) -> None:
        connected = self.accept()
        if connected is None:
            return
        client = _Client(connected, time.monotonic() + SECONDS)
        if client.uid in {0, os.geteuid()}:
            self._clients[connected.fileno()] = client
        else:  # the mode keeps others out; this is for a folder or socket whose mode somebody changed
            log.warning("control: uid %d may not ask: only root and uid %d may", client.uid, os.geteuid())
            connected.close()

    def _serve(self, client: _Client) -> None:
        try:
            if not client.answer and (request := client.read()) is not None:
                client.answer = json.dumps(self._answer(client, request)).encode() + b"\n"
            if client.answer:
                client.answer = client.answer[client.socket.send(client.answer) :]
                if not client.answer:
                    self._drop(client)
        except BlockingIOError:
            pass
        except OSError:
            self._drop(client)

    def _answer(self, client: _Client, line: bytes) -> Mapping[str, Any]:
        try:
            request = json.loads(line)
            name = request["command"]
            command = self.commands[name]
        except (ValueError, TypeError, KeyError, RecursionError):
            return {"error": f"no such command; there are: {', '.join(sorted(self.commands))}"}
        try:
            answer = command.run(request)
        except ControlError as error:
            return {"error": str(error)}
        except Exception:
            log.exception("control: %s: internal error", name)
            return {"error": "internal error: the log of the daemon has more"}
        if command.changes(request):
            shown = " ".join(f"{key}={value}" for key, value in request.items() if key != "command")
            log.log(NOTICE, "control: %s: uid %d, pid %d", f"{name} {shown}".strip(), client.uid, client.pid)
        return answer

    def _drop(self, client: _Client) -> None:
        self._clients.pop(client.socket.fileno(), None)
        client.socket.close()


class _Client:
    """One client of the control socket."""

    def __init__(self, connected: socket.socket, end: float) -> None:
        self.socket = connected
        self.end = end
        self.answer = b""
        self._request = b""
        credentials = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        self.pid, self.uid, _ = _CREDENTIALS.unpack(credentials)

    def read(self) -> bytes | None:
        """The request, when it is complete; None before. OSError: it is too long, or the client has closed."""
        more = self.socket.recv(REQUEST_MAX)
        self._request += more
        line, end, _ = self._request.partition(b"\n")
        if end:
            return line
        if not more or len(self._request) > REQUEST_MAX:
            raise ConnectionError("no request")
        return None


def ask(path: Path, command: str, **fields: Any) -> dict[str, Any]:
    """The answer of the daemon behind this control socket.

    Raises ControlError with the daemon's words for a command that failed, OSError where no daemon answers.
    """
    request = json.dumps({"command": command, **fields}).encode() + b"\n"
    try:
        answer = json.loads(read_answer(path, request))
    except ValueError:
        raise ConnectionError("the daemon gave no answer") from None
    if not isinstance(answer, dict):
        raise ConnectionError("the daemon gave no answer that can be read")
    if "error" in answer:
        raise ControlError(str(answer["error"]))
    return answer
