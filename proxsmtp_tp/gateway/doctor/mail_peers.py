"""The two ends of a probe: a mail server that records what it saw, and a mail client that says how long each step took.

With a certificate the server offers STARTTLS, or begins with TLS. The client believes any certificate, and reports it.
Both run in namespaces of `prober`. Times are seconds of the monotonic clock, which all processes of a host share, so
that a connection of the server can be matched with the mail of the client that caused it.
"""

from __future__ import annotations

import os
import smtplib
import socket
import ssl
import threading
import time
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

from proxsmtp_tp.tls.alerts import received_alert

if TYPE_CHECKING:
    from collections.abc import Callable

CLIENT_NAME = "client.doctor.invalid"
SERVER_NAME = "server.doctor.invalid"
BARE = (
    "From: doctor@doctor.invalid\r\nTo: probe@doctor.invalid\r\nSubject: proxsmtp-tp doctor --probe\r\n"
    "\r\nThis mail tests the gateway between two temporary hosts.\r\n"
)
"""A mail that some filters refuse: no date, no Message-ID, and names that do not exist (RFC 2606)."""
ORDINARY = (
    "Date: {date}\r\nFrom: Postmaster <postmaster@example.com>\r\nTo: Postmaster <postmaster@example.net>\r\n"
    "Message-ID: <{id}@example.com>\r\nSubject: A test of the mail gateway\r\nMIME-Version: 1.0\r\n"
    "Content-Type: text/plain; charset=us-ascii\r\nContent-Transfer-Encoding: 7bit\r\n"
    "\r\nHello,\r\n\r\nthis message tests the mail gateway. Please ignore it.\r\n\r\nThe postmaster\r\n"
)
"""A mail that a filter should pass: complete and short. Date and Message-ID are filled in."""
LONG = 200 * (76 * "x" + "\r\n")
"""Lines that make a mail longer than a packet: 15 kB."""
LONG_REPLY_OCTETS = 4096
"""Octets of the server's reply to HELP, at least: more than fit into one packet."""
_LONG_REPLY = b"".join(b"214-" + b"help " * 12 + b"\r\n" for _ in range(LONG_REPLY_OCTETS // 60 + 1)) + b"214 end\r\n"
_REPLIES = {b"QUIT": b"221 bye\r\n", b"HELP": _LONG_REPLY}
_SO_ORIGINAL_DST = 80
_LINE_MAX = 1 << 16
_SESSION_SECONDS = 60.0


class Recorder:
    """A mail server, which records what it saw."""

    def __init__(self) -> None:
        self._seen: list[dict[str, Any]] = []

    def listen(self, address: str, port: int, tls: ssl.SSLContext | None = None, *, wrapped: bool = False) -> None:
        """Accept from now on. With `tls` it offers STARTTLS, or, `wrapped`, begins with TLS."""
        sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, port))
        sock.listen()
        self.serve(sock, tls, wrapped=wrapped)

    def serve(self, sock: socket.socket, tls: ssl.SSLContext | None = None, *, wrapped: bool = False) -> None:
        """Accept from a listening socket from now on, which others may have made."""
        threading.Thread(target=self._accept, args=(sock, tls, wrapped), daemon=True).start()

    def seen(self) -> list[dict[str, Any]]:
        """For each connection so far: peer (address, port), what it dialled (`to`: address, port), when (`at`), the
        message ("" if none came), and the version of TLS ("" in clear).
        """
        return self._seen

    def _accept(self, sock: socket.socket, tls: ssl.SSLContext | None, wrapped: bool) -> None:
        while True:
            try:
                link, peer = sock.accept()
            except OSError:
                return  # it was closed
            record = {"peer": list(peer[:2]), "to": _dialled(link), "message": "", "tls": "", "at": time.monotonic()}
            self._seen.append(record)
            threading.Thread(target=_serve, args=(link, record, tls, wrapped), daemon=True).start()


def _serve(link: socket.socket, record: dict[str, Any], tls: ssl.SSLContext | None, wrapped: bool) -> None:
    """One session of the server. STARTTLS ends the first part of it."""
    link.settimeout(_SESSION_SECONDS)
    with closing(link), suppress(OSError):
        if not wrapped:
            with closing(link.dup()) as plain:
                if not _converse(plain, record, greeting=True, offers_tls=tls is not None):
                    return
        if tls is not None:
            with closing(tls.wrap_socket(link, server_side=True)) as encrypted:
                record["tls"] = encrypted.version()
                _converse(encrypted, record, greeting=wrapped, offers_tls=False)


def _converse(link: socket.socket, record: dict[str, Any], *, greeting: bool, offers_tls: bool) -> bool:
    """Returns True after STARTTLS; False: the session has ended."""
    lines = link.makefile("rb")
    if greeting:
        link.sendall(f"220 {SERVER_NAME} ESMTP\r\n".encode())
    while line := lines.readline(_LINE_MAX):
        verb = line[:4].upper()
        if verb == b"STAR" and offers_tls:
            link.sendall(b"220 go ahead\r\n")
            return True
        if verb == b"EHLO" and offers_tls:
            link.sendall(f"250-{SERVER_NAME}\r\n250 STARTTLS\r\n".encode())
            continue
        if verb == b"DATA":
            link.sendall(b"354 go on\r\n")
            body = []
            while (line := lines.readline(_LINE_MAX)) not in {b".\r\n", b""}:
                body.append(line.decode("utf-8", "replace"))
            record["message"] = "".join(body)
        link.sendall(_REPLIES.get(verb, b"250 ok\r\n"))
        if verb == b"QUIT":
            break
    return False


def server_tls(chain: str, key: str) -> ssl.SSLContext:
    """The server's TLS, with this certificate and key in PEM."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    fd = os.memfd_create("certificate")  # the ssl module loads from files only; this one is never on a disk
    with os.fdopen(fd, "wb") as file:
        file.write(f"{chain}\n{key}".encode())
        file.flush()
        context.load_cert_chain(f"/proc/self/fd/{fd}")
    return context


def _dialled(link: socket.socket) -> list[Any]:
    """Address and port that the client dialled, in spite of NAT (SO_ORIGINAL_DST, netfilter_ipv4.h, ip6_tables.h)."""
    v6 = link.family == socket.AF_INET6
    level, size, begin, end = (socket.IPPROTO_IPV6, 28, 8, 24) if v6 else (socket.SOL_IP, 16, 4, 8)
    try:
        name = link.getsockopt(level, _SO_ORIGINAL_DST, size)  # struct sockaddr_in or sockaddr_in6
    except OSError:
        return list(link.getsockname()[:2])  # connection tracking does not know it
    return [socket.inet_ntop(link.family, name[begin:end]), int.from_bytes(name[2:4], "big")]


def send(way: dict[str, Any], message: str, seconds: float) -> dict[str, Any]:
    """Send a mail. `way`: source, server, port, `tls`: "" (or absent), "starttls" or "wrapped". No step may take longer
    than `seconds`. Without a message, end at MAIL.

    Returns own (address, port), greeting, the last reply with its step, `seconds` of each step, when it all began and
    ended, and `error` with the step where it broke off (`at`). Of TLS: `offered` (STARTTLS), and version, cipher and
    certificate (DER, in hexadecimal digits), or the `alert` of the other end.
    """
    found: dict[str, Any] = {"own": [], "greeting": "", "step": "", "reply": "", "seconds": {}, "at": "greeting"}
    found |= {"message": message, "v6": ":" in way["server"], "tls": way.get("tls", "")}
    found |= {"server": way["server"], "port": way["port"]}
    found["begun"] = since = time.monotonic()
    try:
        with _client(way, seconds) as link:
            for step, act in _steps(link, way, message):
                since = time.monotonic()
                found["at"] = step
                code, text = act()
                found["seconds"][step] = round(time.monotonic() - since, 3)
                found |= {"step": step, "reply": _reply(code, text)}
                if step == "greeting":
                    found |= {"own": _name(link), "greeting": found["reply"]}
                if step == "EHLO":
                    found["offered"] = link.has_extn("starttls")
                found |= _tls_of(link.sock)
                if code >= 400 or (step == "EHLO" and way.get("tls") == "starttls" and not found["offered"]):
                    break
    except (OSError, smtplib.SMTPException) as error:
        # smtplib reports a time-out as a closed connection.
        found["silent"] = isinstance(error.__context__ or error, TimeoutError)
        found["error"] = f"{type(error).__name__} after {time.monotonic() - since:.0f} s: {error}"
        alert = received_alert(error.reason or "") if isinstance(error, ssl.SSLError) else None
        found["alert"] = alert.text if alert is not None else ""
    found["ended"] = time.monotonic()
    return found


def _client(way: dict[str, Any], seconds: float) -> smtplib.SMTP:
    """It is not connected yet."""
    if way.get("tls") == "wrapped":
        link: smtplib.SMTP = smtplib.SMTP_SSL(timeout=seconds, local_hostname=CLIENT_NAME, context=_any_server())
    else:
        link = smtplib.SMTP(timeout=seconds, local_hostname=CLIENT_NAME)
    link.source_address = (way["source"], 0)
    link._host = SERVER_NAME  # type: ignore[attr-defined]  # noqa: SLF001 - the name in the hello, in place of the address
    return link


def _starttls(link: smtplib.SMTP) -> tuple[int, bytes]:
    """STARTTLS and the handshake, if it is not refused."""
    try:
        return link.starttls(context=_any_server())
    except smtplib.SMTPResponseException as error:
        return error.smtp_code, bytes(error.smtp_error) if isinstance(error.smtp_error, bytes) else b""


def _any_server() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _tls_of(link: socket.socket | None) -> dict[str, Any]:
    if not isinstance(link, ssl.SSLSocket):
        return {}
    cipher, certificate = link.cipher(), link.getpeercert(binary_form=True)
    return {
        "version": link.version(),
        "cipher": cipher[0] if cipher else "",
        "certificate": (certificate or b"").hex(),
    }


def _steps(link: smtplib.SMTP, way: dict[str, Any], message: str) -> list[tuple[str, Callable[[], tuple[int, bytes]]]]:
    sender, recipient = ("doctor@doctor.invalid", "probe@doctor.invalid")
    if "example.com" in message:
        sender, recipient = ("postmaster@example.com", "postmaster@example.net")
    steps: list[tuple[str, Callable[[], tuple[int, bytes]]]] = [
        ("greeting", lambda: link.connect(way["server"], way["port"])),
        ("EHLO", link.ehlo),
    ]
    if way.get("tls") == "starttls":
        steps += [("STARTTLS", lambda: _starttls(link)), ("EHLO in TLS", link.ehlo)]
    steps.append(("MAIL", lambda: link.mail(sender)))
    if message:
        steps += [("RCPT", lambda: link.rcpt(recipient)), ("DATA", lambda: link.data(message))]
    return steps


def ask_long(way: dict[str, Any], seconds: float) -> str:
    """Ask for a long reply: returns "arrived", "silence", another reply, or an error. `way`: as for `send`."""
    try:
        with smtplib.SMTP(timeout=seconds, local_hostname=CLIENT_NAME) as link:
            link.source_address = (way["source"], 0)
            link.connect(way["server"], way["port"])
            link.ehlo()
            code, text = link.docmd("HELP")
    except (OSError, smtplib.SMTPException) as error:
        timed_out = isinstance(error.__context__ or error, TimeoutError)
        return "silence" if timed_out else f"{type(error).__name__}: {error}"
    return "arrived" if len(text) >= LONG_REPLY_OCTETS else _reply(code, text)


def _name(link: smtplib.SMTP) -> list[Any]:
    """Address and port of a connected client."""
    return [] if link.sock is None else list(link.sock.getsockname()[:2])


def _reply(code: int, text: bytes) -> str:
    return f"{code} {text.decode('utf-8', 'replace')}"
