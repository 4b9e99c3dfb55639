"""Checks the servers that the daemon connects to, and who can connect to a daemon without rules.

TransparentProxy off: OutAddress resolves and answers; Listen is no open relay. Otherwise: the servers that the daemon
could not reach lately, as its status tells, are tried again.
"""

from __future__ import annotations

import re
import smtplib
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from ipaddress import ip_address
from typing import TYPE_CHECKING

from proxsmtp_tp.config.addresses import InetAddress, UnixAddress
from proxsmtp_tp.gateway.doctor.findings import Finding, Setup, unseen

if TYPE_CHECKING:
    from collections.abc import Iterator

_DIAL_SECONDS = 3.0  # a server that needs longer for connection and greeting is not well; three fit into a step
_SERVERS_MAX = 8
_FOREIGN = ("doctor@doctor.invalid", "probe@doctor.invalid")  # no server has this domain (RFC 2606)
_ENDPOINT = re.compile(r"\[?([0-9A-Fa-f.:]+)\]?:(\d+)")


def look_at_servers(setup: Setup) -> Iterator[Finding]:
    """Checks that servers answer."""
    settings = setup.settings
    if settings.transparent:
        yield from _failed_lately(setup)
    elif not settings.loopback and isinstance(settings.out_address, InetAddress):
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
    try:
        found = socket.getaddrinfo(host, address.port, type=socket.SOCK_STREAM)
    except OSError as error:
        if not _is_address(host):
            text = f"OutAddress {host} cannot be resolved: {error.strerror or error}"
            yield Finding("DNS", False, f"{text}; look at /etc/resolv.conf and its name servers")
        return
    if not _is_address(host):
        yield Finding("DNS", True, f"OutAddress {host} resolves ({time.monotonic() - begun:.2f} s)")
    problems = []
    for *_, where in found[:2]:
        problem = _greeting((str(where[0]), int(where[1])))
        if not problem:
            yield Finding("server", True, f"OutAddress {address} answers")
            return
        problems.append(f"{where[0]}: {problem}")
    yield Finding("server", False, f"OutAddress {address} does not answer: {'; '.join(problems)}")


def _is_address(host: str) -> bool:
    try:
        ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def _greeting(where: tuple[str, int] | str) -> str:
    """What is wrong with a server's greeting; empty: it greets."""
    try:
        if isinstance(where, str):
            link = socket.socket(socket.AF_UNIX)
            link.settimeout(_DIAL_SECONDS)
            link.connect(where)
        else:
            link = socket.create_connection(where, _DIAL_SECONDS)
        with closing(link):
            first = link.recv(512).decode("ascii", "replace").strip()
    except TimeoutError:
        return f"nothing within {_DIAL_SECONDS:.0f} s"
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
            continue
        step, host = f"access, {address}", address.host
        if host == "localhost" or (host and _is_address(host) and ip_address(host).is_loopback):
            yield Finding(step, True, "only this host reaches it")
        elif settings.clients:
            yield Finding(step, True, f"Clients names who may connect: {', '.join(map(str, settings.clients[:3]))}")
        elif settings.loopback:
            text = "each host that reaches it is connected with its own server: Clients limits that"
            yield Finding(step, True, text)
        elif not settings.x_client and (said := _relays(host or "127.0.0.1", address.port)):
            text = f"it is an open relay: without Clients, it accepts a recipient anywhere from anybody ({said})"
            yield Finding(step, False, f"{text}; set Clients, or Listen on an address that only they reach")
        else:
            yield Finding(step, True, "everybody who reaches it: it relays no foreign recipient")


def _relays(host: str, port: int) -> str:
    """The reply with which the server accepts a foreign recipient; empty: it refuses, or does not answer."""
    local = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 (to connect to)
    try:
        with smtplib.SMTP(local, port, "client.doctor.invalid", _DIAL_SECONDS) as link:
            link.ehlo()
            if link.mail(_FOREIGN[0])[0] >= 400:
                return ""
            code, text = link.rcpt(_FOREIGN[1])
    except (OSError, smtplib.SMTPException):
        return ""
    return f"{code} {text.decode('utf-8', 'replace')}" if code < 400 else ""
