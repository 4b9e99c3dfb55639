"""SMTP clients and a server for the TLS rows of the bench: in clear, STARTTLS, or TLS from the first octet."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import socket
import ssl
import subprocess
import time
from enum import Enum
from typing import TYPE_CHECKING, Any

import uvloop

from bench.processes import START, free_port
from proxsmtp_tp.certificates.material import Material
from proxsmtp_tp.net.tls_contexts import ClientContexts
from proxsmtp_tp.net.tls_stream import TlsStream
from proxsmtp_tp.tls.facts import Side

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MESSAGE = b"Subject: bench\r\n\r\n" + b"x" * 70 * 14 + b"\r\n.\r\n"


def certificate(folder: Path) -> None:
    """A certificate with EC P-256, for all peers."""
    chain, key = folder / "chain.pem", folder / "key.pem"
    wanted = ["-x509", "-nodes", "-days", "2", "-subj", "/CN=mx.example"]
    made = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-keyout", str(key), "-out", str(chain)]
    subprocess.run(["openssl", "req", *wanted, *made], check=True, capture_output=True)
    (folder / "both.pem").write_text(chain.read_text() + key.read_text())


def material(folder: Path) -> Material:
    """The certificate that `certificate` has made, and its key."""
    return Material((folder / "chain.pem").read_bytes(), (folder / "key.pem").read_bytes(), ends=0.0)


class How(Enum):
    """When TLS begins."""

    NEVER = "never"
    STARTTLS = "starttls"
    FIRST = "first"


class Session:
    """An SMTP client."""

    def __init__(self, port: int, how: How, context: ssl.SSLContext) -> None:
        self._sock = socket.create_connection(("127.0.0.1", port), timeout=30)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if how is How.FIRST:
            self._begin_tls(context)
        self._reply(b"220")
        self.say(b"EHLO client.example\r\n")
        if how is How.STARTTLS:
            self.say(b"STARTTLS\r\n", b"220")
            self._begin_tls(context)
            self.say(b"EHLO client.example\r\n")

    def _begin_tls(self, context: ssl.SSLContext) -> None:
        self._sock = context.wrap_socket(self._sock, server_hostname="mx.example")

    def say(self, line: bytes, code: bytes = b"250") -> None:
        """Send a command, and read its reply."""
        self._sock.sendall(line)
        self._reply(code)

    def message(self) -> None:
        """Send one message."""
        self.say(b"MAIL FROM:<a@example.org>\r\n")
        self.say(b"RCPT TO:<b@example.org>\r\n")
        self.say(b"DATA\r\n", b"354")
        self.say(MESSAGE)

    def quit(self) -> None:
        """Send QUIT."""
        self.say(b"QUIT\r\n", b"221")
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._sock.close()

    def _reply(self, code: bytes) -> None:
        reply = b""
        while not reply.endswith(b"\n") or reply.splitlines()[-1][3:4] == b"-":
            if not (more := self._sock.recv(4096)):
                raise ConnectionError(f"closed after {reply!r}")
            reply += more
        if not reply.startswith(code):
            raise ConnectionError(f"{reply!r} in place of {code!r}")


def client_context() -> ssl.SSLContext:
    """A context that verifies nothing: the certificate is self-signed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def send(port: int, how: How, sessions: int, messages: int) -> None:
    """Run so many sessions, one after the other, with so many messages each."""
    context = client_context()
    for _ in range(sessions):
        session = Session(port, how, context)
        for _ in range(messages):
            session.message()
        session.quit()


class Sink(asyncio.Protocol):
    """A mail server that takes everything."""

    contexts = ClientContexts()

    def __init__(self, how: How, certificate: Material) -> None:
        self._how = how
        self._certificate = certificate
        self._stream: TlsStream | None = None
        self._transport: Any = None
        self._text = False
        self._left = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet, or begin TLS."""
        self._transport = transport
        if self._how is How.FIRST:
            self._begin_tls()
        else:
            self._say(b"220 mx.example\r\n")

    def _begin_tls(self) -> None:
        self._stream = TlsStream(self.contexts.get(self._certificate, {0x0304}), Side.CLIENT)

    def data_received(self, data: bytes) -> None:
        """Decrypt."""
        if self._stream is None:
            self._plain(data)
            return
        began = self._stream.handshaking
        plain = self._stream.receive(data)
        while self._stream.more:
            plain += self._stream.receive(b"")
        if began and not self._stream.handshaking and self._how is How.FIRST:
            self._say(b"220 mx.example\r\n")
        self._plain(plain)
        self._transport.write(self._stream.to_send())

    def _plain(self, data: bytes) -> None:
        self._left += data
        while self._left:
            end = b"\r\n.\r\n" if self._text else b"\r\n"
            line, found, rest = self._left.partition(end)
            if not found:
                return
            self._left = rest
            if self._text:
                self._text = False
                self._say(b"250 queued\r\n")
            else:
                self._command(line)

    def _command(self, line: bytes) -> None:
        verb = line[:4].upper()
        if verb == b"EHLO":
            starttls = self._how is How.STARTTLS and self._stream is None
            self._say(b"250-mx.example\r\n" + (b"250-STARTTLS\r\n" if starttls else b"") + b"250 PIPELINING\r\n")
        elif verb == b"STAR":
            self._say(b"220 go\r\n")
            self._begin_tls()
        elif verb == b"DATA":
            self._text = True
            self._say(b"354 go\r\n")
        elif verb == b"QUIT":
            self._say(b"221 bye\r\n")
            self._transport.close()
        else:
            self._say(b"250 ok\r\n")

    def _say(self, reply: bytes) -> None:
        if self._stream is not None and not self._stream.handshaking:
            self._stream.write(reply)
            reply = self._stream.to_send()
        self._transport.write(reply)


def serve(port: int, how: How, folder: Path) -> None:
    """Run the mail server, until it is ended."""

    async def main() -> None:
        loop, certificate = asyncio.get_running_loop(), material(folder)
        server = await loop.create_server(lambda: Sink(how, certificate), "127.0.0.1", port)
        await server.serve_forever()

    uvloop.run(main())


@contextlib.contextmanager
def server(how: How, folder: Path) -> Iterator[int]:
    """A mail server in a process of its own; the context is its port. Its certificate is in `folder`."""
    port = free_port()
    process = multiprocessing.Process(target=serve, args=(port, how, folder))
    process.start()
    try:
        end = time.monotonic() + START
        while not _accepts(port):
            if not process.is_alive() or time.monotonic() > end:
                raise RuntimeError("the mail server does not start")
            time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.join()


def _accepts(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5):
        return True
    return False
