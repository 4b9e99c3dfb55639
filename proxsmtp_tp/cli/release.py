"""Sends a message from quarantine by SMTP to the server that its client meant, with the client's envelope.

All recipients or none: if the server refuses one, the message is not sent. STARTTLS is used where it is offered. A
message of a session with TLS is never sent in clear. The server's certificate is not verified, so a message with
REQUIRETLS (RFC 8689) is not sent.

With RuleLocal the rules would redirect this connection to the daemon, whose filters would keep the message again. They
let connections of the daemon's user pass (`meta skuid`, xt_owner: the user who opened the socket).
"""

from __future__ import annotations

import encodings.idna  # noqa: F401  (socket imports it late: another user may not be able to read it)
import os
import smtplib
import socket
import ssl
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, Any

from proxsmtp_tp.config.addresses import InetAddress, parse_address
from proxsmtp_tp.config.settings import SMTP_PORT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from proxsmtp_tp.filters.quarantine import Entry

SECONDS = 300.0
"""For each reply (RFC 5321 section 4.5.3.2)."""

_NOT_AGAIN = frozenset({"SIZE", "AUTH"})
"""Parameters of MAIL that were for the client's own session."""


class ReleaseError(Exception):
    """The message was not sent: one line says why."""


@contextmanager
def as_user(user: int | None) -> Iterator[None]:
    """The user who opens the sockets. None, or without root: the user of this process."""
    if user is None or os.geteuid() != 0:
        yield
        return
    os.seteuid(user)
    try:
        yield
    finally:
        os.seteuid(0)


def release(entry: Entry, server: str | None, user: int | None = None, *, wrapped: Sequence[int] = ()) -> str:
    """Send it; returns the server's reply. `server`: instead of the original one. `user`: whose socket it is.

    `wrapped`: ports on which TLS begins with the first octet.

    Raises ReleaseError, OSError.
    """
    facts = entry.facts
    host, port = _server(facts, server)
    envelope = facts.get("envelope")
    if envelope is None:
        raise ReleaseError("its envelope is not known")
    if "REQUIRETLS" in envelope["sender_parameters"].upper().split():
        raise ReleaseError("its sender demands TLS with a verified server (REQUIRETLS), and no server is verified here")
    with entry.open() as file:
        text = file.read()
    if len(text) != facts.get("size"):
        raise ReleaseError(f"{entry.path} is not complete")
    try:
        # Not as a context manager: an odd answer to QUIT would be an error, after the server has taken the message.
        with as_user(user):
            link = _connected(host, port, wrapped=port in wrapped)
        with closing(link) as peer:
            peer.ehlo_or_helo_if_needed()
            if peer.has_extn("starttls"):
                peer.starttls(context=_context())
                peer.ehlo()
            elif facts.get("tls") and port not in wrapped:
                raise ReleaseError("its session was encrypted, and the server does not offer STARTTLS: try again later")
            reply = _sent(peer, envelope, text)
            with suppress(smtplib.SMTPException, OSError):
                peer.docmd("QUIT")
            return reply
    except smtplib.SMTPResponseException as error:
        raise ReleaseError(_words(error.smtp_code, error.smtp_error)) from None
    except (smtplib.SMTPException, OSError) as error:
        raise ReleaseError(f"{host}:{port}: {error}") from None


def _connected(host: str, port: int, *, wrapped: bool) -> smtplib.SMTP:
    name = socket.gethostname()
    if wrapped:
        return smtplib.SMTP_SSL(host, port, local_hostname=name, timeout=SECONDS, context=_context())
    return smtplib.SMTP(host, port, local_hostname=name, timeout=SECONDS)


def _context() -> ssl.SSLContext:
    """As any opportunistic client has it: no certificate is verified."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _server(facts: dict[str, Any], server: str | None) -> tuple[str, int]:
    if server is None:
        if not facts.get("server") or not facts.get("server_port"):
            raise ReleaseError("the original server has no address: name one with --server")
        return str(facts["server"]), int(facts["server_port"])
    try:
        address = parse_address(server, SMTP_PORT)
    except ValueError as error:
        raise ReleaseError(str(error)) from None
    if not isinstance(address, InetAddress) or address.port_only:
        raise ReleaseError(f"{server!r} is no host and port")
    return address.host, address.port


def _sent(peer: smtplib.SMTP, envelope: dict[str, Any], text: bytes) -> str:
    _command(peer, _line("MAIL FROM", envelope["sender"], _kept(envelope["sender_parameters"])))
    for address, parameters in zip(envelope["recipients"], envelope["recipient_parameters"], strict=True):
        _command(peer, _line("RCPT TO", address, parameters))
    code, words = peer.data(text)
    if code // 100 != 2:
        raise ReleaseError(_words(code, words))
    return _words(code, words)


def _kept(parameters: str) -> str:
    return " ".join(word for word in parameters.split() if word.partition("=")[0].upper() not in _NOT_AGAIN)


def _line(verb: str, address: str, parameters: str) -> bytes:
    return f"{verb}:<{address}> {parameters}".rstrip().encode("utf-8", "surrogateescape")


def _command(peer: smtplib.SMTP, line: bytes) -> None:
    """Send a command as octets: smtplib's own takes only ASCII."""
    peer.send(line + b"\r\n")
    code, words = peer.getreply()
    if code // 100 != 2:
        raise ReleaseError(f"{line.decode('utf-8', 'backslashreplace')}: {_words(code, words)}")


def _words(code: int, words: bytes | str) -> str:
    text = words.decode("utf-8", "backslashreplace") if isinstance(words, bytes) else words
    return f"{code} {text}".replace("\n", " ")
