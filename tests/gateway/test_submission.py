"""Submission through the rules: port 587 with STARTTLS and a login, port 465 with TLS from the first octet, each as
port 25, with real clients, a server that takes nothing without a login, and a capture of both legs.
"""

from __future__ import annotations

import asyncio
import re
import smtplib
import socket
import ssl
import threading
import time
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

from tests.gateway.daemon_host import WAIT_SECONDS, DaemonHost
from tests.gateway.network import CLIENT, SERVER, family, inside, run
from tests.tls.capture import Capture, check_legs
from tests.tls.daemon import NAME, certificate_files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# aiosmtpd does not see that TLS is around it on port 465.
pytestmark = pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")

PORTS = (25, 587, 465)
USER, PASSWORD = "alice", "wonderland"
OTHER = "192.0.2.11"
DIRECTIVES = {
    "RulePort": "25, 465, 587", "TlsWrapped": "465", "TransparentProxy": "client",
    "Tls": f"terminate client={CLIENT[4]},{CLIENT[6]}\nTls: pass",
    "FilterCommand": "sh -c 'echo X-Judged: yes; exec cat'",
}  # fmt: skip
"""As in docs/tls.md, "Submission": one client is terminated, others pass."""


@dataclass(frozen=True)
class Submitted:
    """A message at the server: who logged in (port 25: nobody), and whether it came by TLS."""

    port: int
    login: bytes
    tls: bool
    text: bytes


class Server:
    """Port 25 takes mail; 587 and 465 only after a login within TLS. On both addresses of the server's namespace."""

    def __init__(self, namespace: str, folder: Path) -> None:
        self.messages: list[Submitted] = []
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate_files(folder))
        self._tls = context
        self._servers: list[asyncio.Server] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        for port in PORTS:
            for address in SERVER.values():
                sock = inside(namespace, lambda address=address, port=port: _listener(address, port))  # type: ignore[misc]
                ssl_context = context if port == 465 else None
                made = self._loop.create_server(lambda port=port: self._session(port), sock=sock, ssl=ssl_context)
                self._servers.append(asyncio.run_coroutine_threadsafe(made, self._loop).result(30))

    def _session(self, port: int) -> SMTP:
        more: dict[str, Any] = {} if port == 465 else {"tls_context": self._tls}
        if port != 25:
            more |= {"authenticator": _knows, "auth_required": True, "auth_require_tls": port != 465}
        return SMTP(_Handler(self.messages, port), hostname=NAME, **more)

    def close(self) -> None:
        """End it."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        for server in self._servers:
            server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.1)  # transports close


def _listener(address: str, port: int) -> socket.socket:
    sock = socket.socket(family(address))
    sock.bind((address, port))
    sock.listen()
    return sock


def _knows(_server: object, _session: object, _envelope: object, _mechanism: str, data: object) -> AuthResult:
    good = isinstance(data, LoginPassword) and data == LoginPassword(USER.encode(), PASSWORD.encode())
    return AuthResult(success=good, handled=False, auth_data=data)


class _Handler:
    def __init__(self, messages: list[Submitted], port: int) -> None:
        self._messages = messages
        self._port = port

    async def handle_DATA(self, _server: object, session: Any, envelope: Any) -> str:
        """One message."""
        login = session.auth_data.login if session.authenticated else b""
        tls = session.ssl is not None or self._port == 465
        self._messages.append(Submitted(self._port, login, tls, envelope.content))
        return "250 2.0.0 queued"


@pytest.fixture(params=[
    ("nftables", "redirect"), ("nftables", "tproxy"), ("iptables", "redirect"), ("iptables", "tproxy"),
], ids="-".join)  # fmt: skip
def gateway(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[DaemonHost, Server]]:
    """A gateway and a server."""
    method, mode = request.param
    with closing(DaemonHost(**DIRECTIVES | {"RuleMethod": method, "RuleMode": mode})) as host:
        run(host.net.client, "ip", "addr", "add", f"{OTHER}/24", "dev", "eth0")
        with closing(Server(host.net.server, tmp_path)) as server:
            yield host, server


def by_swaks(host: DaemonHost, port: int, source: str = CLIENT[4]) -> str:
    """One message with a login; what swaks says."""
    login = ("--auth", "PLAIN", "--auth-user", USER, "--auth-password", PASSWORD) if port != 25 else ()
    start = "--tls-on-connect" if port == 465 else "--tls"
    return run(
        host.net.client, "swaks", "--server", f"{SERVER[4]}:{port}", "--local-interface", source, start, *login,
        "--from", "alice@client.example", "--to", "bob@mx.example", "--body", f"a line for {port}",
    )  # fmt: skip


def by_smtplib(host: DaemonHost, port: int) -> None:
    """The same over IPv6."""

    def send() -> None:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        kind: Any = smtplib.SMTP_SSL if port == 465 else smtplib.SMTP
        more = {"context": context} if port == 465 else {}
        with kind(SERVER[6], port, "client.example", timeout=60, **more) as client:
            if port != 465:
                client.starttls(context=context)
            if port != 25:
                client.login(USER, PASSWORD)
            client.sendmail("alice@client.example", ["bob@mx.example"], f"Subject: x\r\n\r\na line for {port}\r\n")

    inside(host.net.client, send)


def logged(host: DaemonHost, pattern: str, times: int) -> None:
    """Wait until the log has so many such lines."""
    end = time.monotonic() + WAIT_SECONDS
    while (found := len(re.findall(pattern, host.instance.log))) < times and time.monotonic() < end:
        time.sleep(0.05)
    assert found == times, host.instance.log


def test_ports_587_and_465_are_taken_as_port_25_is(gateway: tuple[DaemonHost, Server]) -> None:
    """Login and message in TLS on both legs; each message is judged, and nobody has written the password down."""
    host, server = gateway
    with Capture("lan0", host.instance.host) as clients, Capture("wan0", host.instance.host) as servers:
        for port in PORTS:
            assert "250 2.0.0 queued" in by_swaks(host, port)
            by_smtplib(host, port)
    wanted = [(port, b"" if port == 25 else USER.encode(), True) for port in PORTS for _ in (4, 6)]
    assert [(each.port, each.login, each.tls) for each in server.messages] == wanted
    assert all(each.text.startswith(b"X-Judged: yes") for each in server.messages)
    assert all(f"a line for {each.port}".encode() in each.text for each in server.messages)
    logged(host, r"status=FILTERED.*client_tls=TLSv1\.3, server_tls=TLSv1\.3/unverified", 6)
    assert PASSWORD not in host.instance.log
    legs = [[each for each in leg.streams if each.port in PORTS] for leg in (clients, servers)]
    assert [len(leg) for leg in legs] == [6, 6]
    check_legs(*legs)
    assert not any(each.clear for leg in legs for each in leg)


def test_other_clients_pass(gateway: tuple[DaemonHost, Server]) -> None:
    """Their TLS is with the server itself, and their passwords are not in the gateway."""
    host, server = gateway
    for port in PORTS:
        assert NAME in by_swaks(host, port, OTHER)
    assert [(each.port, each.tls) for each in server.messages] == [(port, True) for port in PORTS]
    assert not any(b"X-Judged" in each.text for each in server.messages)
    logged(host, r"TLS passed on, not judged \(Tls: pass\)", len(PORTS))


@pytest.mark.parametrize("gateway", [("nftables", "redirect")], indirect=True)
def test_a_wrong_password_gets_the_servers_refusal(gateway: tuple[DaemonHost, Server]) -> None:
    host, server = gateway

    def log_in() -> None:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with smtplib.SMTP(SERVER[4], 587, "client.example", timeout=60) as client:
            client.ehlo()
            assert not client.has_extn("auth")  # before TLS the server does not show it, and nobody adds it
            client.starttls(context=context)
            client.login(USER, "jabberwock")

    with pytest.raises(smtplib.SMTPAuthenticationError, match="535"):
        inside(host.net.client, log_in)
    assert server.messages == []
