"""Checks the servers that the daemon connects to, and who can connect to a daemon without rules.

With one server: OutAddress resolves and answers; Listen is no open relay. With many, in the transparent modes and in
loopback mode: those that the daemon could not reach lately, as its status tells, are tried again.
"""

from __future__ import annotations

import queue
import re
import smtplib
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from ipaddress import ip_address
from typing import TYPE_CHECKING

from proxsmtp_tp.config.addresses import InetAddress, UnixAddress
from proxsmtp_tp.gateway.doctor import own_connections
from proxsmtp_tp.gateway.doctor.findings import Finding, Setup, unseen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Together less than a step may take, so that the step can say which of them did not answer.
DNS_SECONDS = 4.0
"""The resolver itself waits 10 s and more for name servers that are gone (resolv.conf(5), timeout and attempts)."""
DIAL_SECONDS = 5.0
"""For connection and greeting. A server that needs longer has a fault; all servers are tried at the same time."""
RELAY_SECONDS = 8.0
"""For a whole dialogue, up to the reply to RCPT."""
_SERVERS_MAX = 8
_FOREIGN = ("doctor@doctor.invalid", "probe@doctor.invalid")  # no server has this domain (RFC 2606)
_ENDPOINT = re.compile(r"\[?([0-9A-Fa-f.:]+)\]?:(\d+)")


def look_at_servers(setup: Setup) -> Iterator[Finding]:
    """Checks that servers answer."""
    settings = setup.settings
    if settings.transparent or settings.loopback:
        yield from _failed_lately(setup)
    elif isinstance(settings.out_address, InetAddress):
        yield from _out_address(settings.out_address)
    elif isinstance(settings.out_address, UnixAddress):
        problem = _greeting(settings.out_address.path)
        text = f"OutAddress {settings.out_address} {f'does not answer: {problem}' if problem else 'answers'}"
        yield Finding("server", not problem, text)


def _failed_lately(setup: Setup) -> Iterator[Finding]:
    answer = setup.status()
    if answer is None:
        yield unseen("servers", "the daemon does not tell its status")
        return
    down = {item["server"]: item for item in answer.get("servers_down", [])}
    names = [name for name in down if _ENDPOINT.fullmatch(name)][:_SERVERS_MAX]
    if not names:
        yield Finding("servers", True, "none is out of reach")
        return
    with ThreadPoolExecutor(len(names)) as pool:
        problems = list(pool.map(_problem_of, names))
    for name, problem in zip(names, problems, strict=True):
        ago = (
            f"the daemon could not reach it for {down[name]['failures']} clients in the last {down[name]['seconds']} s"
        )
        text = f"{name} does not answer: {problem}; {ago}" if problem else f"{name} answers; {ago}"
        yield Finding("servers", not problem, text)


def _problem_of(name: str) -> str:
    found = _ENDPOINT.fullmatch(name)
    return _greeting((found[1], int(found[2]))) if found else "it is no address"


def _out_address(address: InetAddress) -> Iterator[Finding]:
    host = address.host or "localhost"
    begun = time.monotonic()
    found = _resolved(host, address.port)
    if isinstance(found, str):
        text = f"OutAddress {host} cannot be resolved: {found}"
        yield Finding("DNS", False, f"{text}; look at /etc/resolv.conf and its name servers")
        return
    if not _is_address(host):
        yield Finding("DNS", True, f"OutAddress {host} resolves ({time.monotonic() - begun:.2f} s)")
    with ThreadPoolExecutor(len(found)) as pool:
        problems = list(pool.map(_greeting, found))
    if all(problems):
        each = "; ".join(f"{where[0]}: {problem}" for where, problem in zip(found, problems, strict=True))
        yield Finding("server", False, f"OutAddress {address} does not answer: {each}")
    else:
        yield Finding("server", True, f"OutAddress {address} answers")


def _resolved(host: str, port: int) -> list[tuple[str, int]] | str:
    """The first addresses of a name, or why there are none. The resolver's own time limits are too long for us."""
    answers: queue.SimpleQueue[list[tuple[str, int]] | str] = queue.SimpleQueue()

    def resolve() -> None:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            answers.put(error.strerror or str(error))
        else:
            answers.put([(str(where[0]), int(where[1])) for *_, where in found[:2]])

    threading.Thread(target=resolve, daemon=True).start()
    try:
        return answers.get(timeout=DNS_SECONDS)
    except queue.Empty:
        return f"no answer within {DNS_SECONDS:.0f} s"


def _is_address(host: str) -> bool:
    try:
        ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def _greeting(where: tuple[str, int] | str) -> str:
    """What is wrong with a server's greeting; empty: it greets."""
    end = time.monotonic() + DIAL_SECONDS
    try:
        if isinstance(where, str):
            link = socket.socket(socket.AF_UNIX)
            link.settimeout(DIAL_SECONDS)
            link.connect(where)
        else:
            link = socket.create_connection(where, DIAL_SECONDS)
        with closing(link):
            link.settimeout(max(0.001, end - time.monotonic()))
            first = link.recv(512).decode("ascii", "replace").strip()
    except TimeoutError:
        return f"nothing within {DIAL_SECONDS:.0f} s"
    except OSError as error:
        return error.strerror or str(error)
    return "" if first.startswith("220") else f"it says {first!r}" if first else "it closes the connection"


def look_at_access(setup: Setup) -> Iterator[Finding]:
    """Checks who reaches a daemon that forwards to one server: an open relay is used within hours."""
    settings = setup.settings
    if settings.transparent or setup.intercepts:
        return
    for address in settings.listen:
        if not isinstance(address, InetAddress):
            yield Finding(f"access, {address}", True, "only this host reaches it")
            continue
        step, host = f"access, {address}", address.host
        if host == "localhost" or (host and _is_address(host) and ip_address(host).is_loopback):
            yield Finding(step, True, "only this host reaches it")
        elif settings.clients:
            yield Finding(step, True, f"Clients names who may connect: {', '.join(map(str, settings.clients[:3]))}")
        elif settings.loopback:
            text = "each host that reaches it is connected with its own server: Clients limits that"
            yield Finding(step, True, text)
        elif not settings.x_client and (said := _relays(setup, host or "127.0.0.1", address.port)):
            text = f"it is an open relay: without Clients, it accepts a recipient anywhere from anybody ({said})"
            yield Finding(step, False, f"{text}; set Clients, or Listen on an address that only they reach")
        else:
            yield Finding(step, True, "everybody who reaches it: it relays no foreign recipient")


class _Relay(smtplib.SMTP):
    """A session with the daemon, with a QUIT at the end. It is announced."""

    def __init__(self, setup: Setup, seconds: float) -> None:
        self._setup = setup
        super().__init__(local_hostname="client.doctor.invalid", timeout=seconds)

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        """Where smtplib connects."""
        return own_connections.connect(self._setup, (host, port), timeout)


def _relays(setup: Setup, host: str, port: int) -> str:
    """The reply with which the server accepts a foreign recipient; empty: it refuses, or does not answer."""
    local = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 (to connect to)
    steps: list[Callable[[smtplib.SMTP], tuple[int, bytes]]] = [
        lambda link: link.connect(local, port),
        lambda link: link.ehlo(),
        lambda link: link.mail(_FOREIGN[0]),
        lambda link: link.rcpt(_FOREIGN[1]),
    ]
    try:  # with QUIT at the end
        with _Relay(setup, RELAY_SECONDS / (len(steps) + 1)) as link:
            for step in steps:
                code, text = step(link)
                if code >= 400:
                    return ""
    except (OSError, smtplib.SMTPException):
        return ""
    return f"{code} {text.decode('utf-8', 'replace')}"
