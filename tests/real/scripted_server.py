"""A server on the MX that answers only once it has seen what its script expects: it counts round trips."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from proxsmtp_tp.lab.network import Host

if TYPE_CHECKING:
    import socket
    from types import TracebackType


SECONDS = 60.0
"""A command that has not come by then will not come: the proxy waits for a reply that this server withholds."""


@dataclass(frozen=True, slots=True)
class Step:
    """Wait for all of `expects`, which end with CR LF, without a word; then send `answers` at once."""

    expects: bytes
    answers: bytes


@dataclass
class ScriptedServer:
    """Serves one connection by its script, in a thread. Leaving it raises what went wrong."""

    host: Host
    address: str
    port: int
    greeting: bytes
    steps: list[Step]
    _trouble: list[BaseException] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._listener = self.host.listen(self.address, self.port)
        self._listener.settimeout(SECONDS)
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.join()
        self._listener.close()
        if self._trouble:
            raise self._trouble[0] from error

    def _serve(self) -> None:
        try:
            link, _ = self._listener.accept()
            with link:
                link.settimeout(SECONDS)
                link.sendall(self.greeting)
                for step in self.steps:
                    self._take(link, step)
        except (OSError, AssertionError) as trouble:
            self._trouble.append(trouble)

    def _take(self, link: socket.socket, step: Step) -> None:
        got = b""
        while len(got) < len(step.expects):
            try:
                chunk = link.recv(65536)
            except TimeoutError:
                chunk = b""
            assert chunk, f"expected {step.expects!r}, got {got!r} and nothing more before an answer"
            got += chunk
        assert got == step.expects, f"expected {step.expects!r}, got {got!r}"
        link.sendall(step.answers)
