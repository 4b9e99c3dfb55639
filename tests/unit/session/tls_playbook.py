"""Playbooks of sessions with STARTTLS, up to each step of it."""

from __future__ import annotations

from dataclasses import replace

from proxsmtp_tp.config.tls_lines import parse_tls, parse_upstream
from proxsmtp_tp.session import effects, events
from proxsmtp_tp.session.effects import PassTls, PeekClientHello
from proxsmtp_tp.session.options import Options
from proxsmtp_tp.tls.client_hello import ClientHello
from proxsmtp_tp.tls.facts import Side, TlsFacts, Verified
from proxsmtp_tp.tls.levels import UpstreamPolicy
from proxsmtp_tp.tls.policy import TlsPolicy
from tests.unit.session.playbook import C, Playbook, S, client, introduced, server

READY = "220 2.0.0 Ready to start TLS"
ANY = parse_upstream("may")[0]
NAME = "mx.example"


def options(*lines: str, upstream: tuple[str, ...] = (), **more: object) -> Options:
    """Options with these Tls and UpstreamTls lines."""
    rules = tuple(rule for line in lines for rule in parse_tls(line))
    levels = tuple(rule for line in upstream for rule in parse_upstream(line))
    return replace(Options(), tls=TlsPolicy(rules), upstream_tls=UpstreamPolicy(levels), **more)  # type: ignore[arg-type]


TERMINATE = options("terminate")
PASS = options("pass")
OFFERS = ("STARTTLS", "SIZE", "AUTH PLAIN LOGIN")


def hello(name: str = NAME, *, ech: bool = False) -> events.ClientHelloSeen:
    """A client's hello."""
    return events.ClientHelloSeen(ClientHello(name, (), (0x0304,), ech, b"\x16\x03\x01"))


def tls(side: Side, verified: Verified = Verified.NO) -> events.TlsStarted:
    """The handshake of one side is complete."""
    return events.TlsStarted(side, TlsFacts("TLSv1.3", "TLS_AES_256_GCM_SHA384", NAME, verified))


def offered(given: Options = TERMINATE, *keywords: str) -> Playbook:
    """Past EHLO, with STARTTLS offered."""
    return introduced(given, *(keywords or OFFERS))


def ready(given: Options = TERMINATE) -> Playbook:
    """Past the server's 220."""
    return (
        offered(given)
        >> C("STARTTLS") << server("STARTTLS")
        >> S(READY) << client(READY) << PeekClientHello()
    )  # fmt: skip


def terminated(given: Options = TERMINATE, verified: Verified = Verified.NO) -> Playbook:
    """Both sides have TLS."""
    known = verified is not Verified.NO
    return (
        ready(given)
        >> hello() << effects.StartServerTls(NAME, given.upstream_tls.rule_for("198.51.100.25", 0))
        >> tls(Side.SERVER, verified) << effects.StartClientTls(verified=known)
        >> tls(Side.CLIENT)
    )  # fmt: skip


def within(play: Playbook, *keywords: str) -> Playbook:
    """Past EHLO within TLS; the client sees these keywords as the server has them."""
    lines = ["mx.example", *keywords]
    reply = "\n".join(f"250{' ' if at == len(lines) - 1 else '-'}{line}" for at, line in enumerate(lines))
    return play >> C("EHLO c") << server("EHLO c") >> S(reply) << client(reply)


# Pass.


def passing() -> Playbook:
    """The client's TLS is passed on."""
    return ready(PASS) >> hello() << PassTls()
