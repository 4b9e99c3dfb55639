"""TLS on both legs through this project and haproxy, side by side in one run. `make bench` runs it as its last part.

haproxy knows no STARTTLS: through it clients and the server have TLS from the first octet, through us STARTTLS (one
more EHLO and two more round trips on each leg). Clients and server are processes of `tls_peers`; they are in Python and
take most of the machine, so CPU time compares better than rates. A subject has one worker or thread: compared by the
core.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench import processes
from bench.measuring import LoadError, Pair
from bench.result import Memory
from bench.subjects import Build, Form, Setting, Subject, haproxy, ours
from bench.tls_peers import How, Session, certificate, client_context, send, server

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

CLIENTS = 4
IDLE_SESSIONS = 300
WARM_SESSIONS = 20
MESSAGES_REUSED = 100
NEW, REUSED = "TLS: new sessions", "TLS: reused sessions"
HAPROXY_TLS = "haproxy, ssl in, ssl out"
TLS, CLEAR = "TLS in, TLS out", "in clear"
"""Appended to the name of a build of this project."""
_SETTLE = 0.5
"""Seconds until a session that was greeted has its memory."""


@dataclass(frozen=True, slots=True)
class TlsClients:
    """CLIENTS processes, each one session after the other. See measuring.Load."""

    name: str
    how: How
    messages_each: int
    """Messages in a session."""

    def fitting(self, messages: int) -> int:
        """The same number of whole sessions for each client."""
        each = CLIENTS * self.messages_each
        return max(messages // each, 1) * each

    def run(self, subject: Subject, messages: int) -> float:
        """Seconds."""
        sessions = messages // self.messages_each // CLIENTS
        task = (subject.port, self.how, sessions, self.messages_each)
        clients = [multiprocessing.Process(target=send, args=task) for _ in range(CLIENTS)]
        began = time.monotonic()
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        if any(client.exitcode for client in clients):
            raise LoadError("a client failed: see above")
        return time.monotonic() - began


@contextlib.contextmanager
def subjects(folder: Path, builds: Sequence[Build]) -> Iterator[list[tuple[Subject, How]]]:
    """haproxy and each build, with a server each."""
    certificate(folder)
    chain, key, both = (folder / f"{name}.pem" for name in ("chain", "key", "both"))
    terminate = f"Tls: terminate\nTlsCertificate: {chain} {key}\nTlsHandshakes: 0\n"
    with contextlib.ExitStack() as stack:
        to = {how: stack.enter_context(server(how, folder)) for how in How}
        pem = (both, "ssl verify none no-ssl-reuse")
        found = [(stack.enter_context(haproxy(Setting(folder, to[How.FIRST]), HAPROXY_TLS, tls=pem)), How.FIRST)]
        for build in builds:
            for title, lines, how in ((TLS, terminate, How.STARTTLS), (CLEAR, "", How.NEVER)):
                form = Form(f"{build.name}, {title}", lines, workers=1)
                found.append((stack.enter_context(ours(Setting(folder, to[how]), build, form)), how))
        yield found


def pairs(of: Sequence[tuple[Subject, How]]) -> list[Pair]:
    """New sessions with one message each, and sessions with many."""
    return [
        Pair(subject, TlsClients(name, how, each))
        for name, each in ((NEW, 1), (REUSED, MESSAGES_REUSED))
        for subject, how in of
    ]


def memory(subject: Subject, how: How) -> Memory:
    """Without a session, and for each session that waits after EHLO."""
    base = processes.memory(subject.pid)
    context = client_context()
    warm = [Session(subject.port, how, context) for _ in range(WARM_SESSIONS)]
    time.sleep(_SETTLE)
    before = processes.memory(subject.pid)
    kept = [Session(subject.port, how, context) for _ in range(IDLE_SESSIONS)]
    time.sleep(_SETTLE)
    grown = processes.memory(subject.pid) - before
    for session in warm + kept:
        session.close()
    return Memory(subject.name, len(processes.forks(subject.pid)), base, grown / IDLE_SESSIONS)
