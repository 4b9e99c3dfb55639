"""What a Postfix with each of its TLS levels makes of each action: it sends through the gateway to another Postfix.

The names are in a signed zone, both the sender and the gateway ask a resolver that validates it. Each action has a
domain, `ACTION.example`, and an MX with an address of its own, by which the gateway chooses. `ACTION-plain.example` is
the same without TLSA records. A message for `LEVEL@ACTION.example` is sent with this level.
"""

from __future__ import annotations

import re
import subprocess
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from proxsmtp_tp.lab.client import Client
from proxsmtp_tp.lab.gateway import Instance
from proxsmtp_tp.lab.network import LAN_V4, GatewayNetwork
from tests.real.postfix import Postfix
from tests.tls import public_ca
from tests.tls.capture import Capture, Stream, check_legs
from tests.tls.dns import Dns

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


SMTP = 25
SECONDS = 60.0
"""Until the last message is delivered or deferred, on a busy machine."""


@dataclass(frozen=True)
class Action:
    """What the gateway does, and whether the sender trusts its CA. `shown`: for the table."""

    name: str
    shown: str
    tls: str = ""
    """The action in its Tls line; "": the gateway is not there."""
    trusted: bool = False


ACTIONS = (
    Action("direct", "without the gateway"),
    Action("strip", "`strip`", "strip"),
    Action("refuse", "`refuse`", "refuse"),
    Action("pass", "`pass`", "pass"),
    Action("terminate", "`terminate`", "terminate"),
    Action("trusted", "`terminate`, the sender trusts the gateway's CA", "terminate", trusted=True),
    Action("verified", "the same, and `UpstreamTls: verify match=MX`", "terminate", trusted=True),
    Action("own", "`terminate` with the server's certificate (`TlsCertificate`)", "terminate"),
)


@dataclass(frozen=True)
class Level:
    """A sender's policy, as settings of Postfix. `records`: the server has TLSA records."""

    name: str
    shown: str
    settings: dict[str, str]
    records: bool = True
    dane: str = "pass"
    """TlsDane."""

    def recipient(self, action: Action) -> str:
        """Its message for an action."""
        return f"{self.name}@{action.name}{'' if self.records else '-plain'}.example"


def _level(level: str, **others: str) -> dict[str, str]:
    return {"smtp_tls_security_level": level, **others}


_RECORDS, _NONE = ", server with TLSA records", ", server without TLSA records"
_FIXED = ", `TlsDane: terminate`"
LEVELS = (
    Level("none", "Postfix `none`", _level("none")),
    Level("may", "Postfix `may`", _level("may")),
    Level("encrypt", "Postfix `encrypt`", _level("encrypt")),
    Level("dane", f"Postfix `dane`{_RECORDS}", _level("dane")),
    Level("dane-plain", f"Postfix `dane`{_NONE}", _level("dane"), records=False),
    Level("dane-only", f"Postfix `dane-only`{_RECORDS}", _level("dane-only")),
    Level("dane-only-plain", f"Postfix `dane-only`{_NONE}", _level("dane-only"), records=False),
    Level("dane-terminated", f"Postfix `dane`{_RECORDS}{_FIXED}", _level("dane"), dane="terminate"),
    Level("dane-only-terminated", f"Postfix `dane-only`{_RECORDS}{_FIXED}", _level("dane-only"), dane="terminate"),
    Level("fingerprint", "Postfix `fingerprint`", _level("fingerprint", smtp_tls_fingerprint_digest="sha256")),
    Level("verify", "Postfix `verify`", _level("verify")),
    Level("secure", "Postfix `secure`", _level("secure")),
    Level(
        "mta-sts", "Postfix `secure` with the server name in its hello (MTA-STS `enforce`)",
        _level("secure", smtp_tls_secure_cert_match="hostname", smtp_tls_servername="hostname"), records=False,
    ),
)  # fmt: skip

FILTER = """\
#!/bin/sh
printf 'X-Judged: client=%s server=%s\\n' "$CLIENT_TLS" "$SERVER_TLS"
exec cat
"""
_AT_ONCE = {"TlsHandshakes": "0", "TlsClientHandshakes": "0"}
"""No limits: all messages come at once, and a slow machine would get 454 for some."""
_STATUS = re.compile(r" to=<([^>]+)>, .*\bdsn=([\d.]+), status=(\w+) \((.*)\)$", re.MULTILINE)
_JUDGED = re.compile(rb"^X-Judged: client=(\S*) server=(\S*)$", re.MULTILINE)
_RECIPIENT = re.compile(rb"^X-Original-To: (\S+)$", re.MULTILINE)


_NOT_SENT = {"deferred": "waits", "bounced": "returned"}


@dataclass(frozen=True)
class Outcome:
    """Of one message. `said`: by the sender's log."""

    status: str
    code: str
    said: str
    judged: bool = False
    client_tls: bool = False
    server_tls: bool = False

    @property
    def shown(self) -> str:
        """For the table."""
        if self.status != "sent":
            return f"{_NOT_SENT[self.status]} {self.code}".rstrip()
        assert self.server_tls or not self.client_tls, self
        clear = "" if self.client_tls else ", in clear to the gateway" if self.server_tls else ", in clear"
        return ("judged" if self.judged else "not judged") + clear


@dataclass(frozen=True)
class Lab:
    """All that runs but the gateway."""

    network: GatewayNetwork
    directory: Path
    certificate: public_ca.ServerCertificate
    addresses: dict[str, str]
    sender: Postfix
    server: Postfix

    def instance(self, dane: str, **others: str) -> Instance:
        """The gateway with a Tls line for each action, and other directives."""
        lines = [f"{action.tls} server={self.addresses[action.name]}" for action in ACTIONS if action.tls]
        own, verified = (self.addresses[name] for name in ("own", "verified"))
        directives = {
            "TransparentProxy": "client", "TempDirectory": str(self.directory), "RuleInterface": "lan",
            "FilterCommand": str(self.directory / "judge"),
            "Tls": "\nTls: ".join([*lines, "terminate"]), "TlsDane": dane,
            "TlsCertificate": f"{self.certificate.chain} {self.certificate.key} server={own}",
            "UpstreamTls": f"verify server={verified} match=mx.verified.example,mx.verified-plain.example",
            "UpstreamCaFile": str(self.certificate.ca), **_AT_ONCE, **others,
        }  # fmt: skip
        return Instance(self.network.gateway, self.directory, directives, "gateway")

    def trust(self, ca: str) -> None:
        """The senders that trust the gateway get its CA."""
        (self.directory / "trusted.pem").write_text(self.certificate.ca.read_text() + ca)

    def outcomes(self, levels: Sequence[Level], actions: Sequence[Action]) -> dict[tuple[str, str], Outcome]:
        """Send one message for each, and wait until it is delivered or deferred."""
        wanted = {level.recipient(action): (level.name, action.name) for level in levels for action in actions}
        start = len(self.sender.log)
        self.server.empty_mailbox()
        with Client(self.network.sender, "127.0.0.1") as client:
            client.ehlo()
            for to in wanted:
                text = f"From: a@sender.example\r\nTo: {to}\r\nSubject: x\r\n\r\nhello\r\n"
                reply = client.submit(f"{to.replace('@', '.at.')}@sender.example", [to], text.encode())
                assert reply.startswith("250 "), reply
        end = time.monotonic() + SECONDS
        while missing := wanted.keys() - (statuses := self._statuses(start)).keys():
            assert time.monotonic() < end, f"{sorted(missing)}\n{self.sender.log[-4000:]}"
            time.sleep(0.2)
        sent = sum(status == "sent" for _, status, _ in statuses.values())
        self.server.wait_mailbox(sent, SECONDS)
        arrived = self.arrived()
        return {wanted[to]: outcome(statuses[to], arrived.get(to)) for to in wanted}

    def arrived(self) -> dict[str, Arrived]:
        """What the server has of this round, by recipient."""
        return dict(map(_arrived, (file.read_bytes() for file in self.server.mailbox())))

    def _statuses(self, start: int) -> dict[str, tuple[str, str, str]]:
        """The first of each recipient since then; without bounces, which come back to the sender."""
        found = reversed(_STATUS.findall(self.sender.log[start:]))
        return {to: (code, status, said) for to, code, status, said in found if not to.endswith("@sender.example")}


Arrived = tuple[bool, bool, bool]
"""Whether it was judged, and TLS on the client's and the server's leg."""


def _arrived(text: bytes) -> tuple[str, Arrived]:
    """With the recipient."""
    to = _RECIPIENT.search(text)
    assert to is not None, text
    received = text[text.index(b"\nReceived: ") :].partition(b" by mx.example ")[0]
    server_tls = b"(using TLSv1" in received
    judged = _JUDGED.search(text)
    if judged is None:
        return to[1].decode(), (False, server_tls, server_tls)
    assert bool(judged[2]) == server_tls, text
    return to[1].decode(), (True, bool(judged[1]), server_tls)


def outcome(status: tuple[str, str, str], arrived: Arrived | None) -> Outcome:
    """`status`: the enhanced code, Postfix's word, and the rest, of the sender's log."""
    code, word, said = status
    assert (arrived is not None) == (word == "sent"), status
    return Outcome(word, code, said, *(arrived or ()))


@contextmanager
def open_lab(network: GatewayNetwork, directory: Path, version: int = 4) -> Iterator[Lab]:
    """Start the servers. `directory` must be open to everybody. `version` of IP: the only one that servers have."""
    prefix, length = ("198.51.100.", 24) if version == 4 else ("2001:db8:2::", 64)
    addresses = {action.name: f"{prefix}{30 + n}" for n, action in enumerate(ACTIONS)}
    domains = [f"{action.name}{suffix}.example" for action in ACTIONS for suffix in ("", "-plain")]
    certificate = public_ca.make(directory / "certificate", [f"mx.{domain}" for domain in domains])
    (directory / "judge").write_text(FILTER)
    (directory / "judge").chmod(0o755)
    (directory / "trusted.pem").write_text(certificate.ca.read_text())
    for name in ("sender", "mx"):
        (directory / name).mkdir()
    with ExitStack() as stack:
        for address in addresses.values():
            network.mx.run("ip", "addr", "add", f"{address}/{length}", "dev", "eth0")
            stack.callback(network.mx.run, "ip", "addr", "del", f"{address}/{length}", "dev", "eth0")
        stack.enter_context(_resolvers(directory / "resolv.conf"))
        records = _zone(addresses, certificate.tlsa)
        stack.enter_context(Dns(directory / "dns", records, host=network.gateway, addresses=(LAN_V4,)))
        stack.callback(network.sender.stop_all)
        stack.callback(network.mx.stop_all)
        sender = _start_sender(network, directory, certificate)
        tls = {
            "smtpd_tls_security_level": "may", "smtpd_tls_received_header": "yes",
            "smtpd_client_connection_count_limit": "0",
        }  # fmt: skip
        files = {"smtpd_tls_chain_files": f"{certificate.key} {certificate.chain}"}
        server = Postfix.start(network.mx, directory / "mx", "mx.example", tuple(domains), {}, tls | files)
        sender.wait_ready()
        server.wait_ready()
        yield Lab(network, directory, certificate, addresses, sender, server)


@contextmanager
def _resolvers(file: Path) -> Iterator[None]:
    """The gateway believes the resolver on loopback; the sender, which has none there, asks the next one."""
    file.write_text(f"nameserver 127.0.0.1\nnameserver {LAN_V4}\noptions trust-ad\n")
    subprocess.run(["mount", "--bind", file, "/etc/resolv.conf"], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "/etc/resolv.conf"], check=True)


def _zone(addresses: dict[str, str], tlsa: str) -> str:
    lines = []
    for name, address in addresses.items():
        for domain in (f"{name}.example.", f"{name}-plain.example."):
            lines += [f"{domain} 60 MX 10 mx.{domain}", f"mx.{domain} 60 {'AAAA' if ':' in address else 'A'} {address}"]
        lines.append(f"_25._tcp.mx.{name}.example. 60 TLSA {tlsa}")
    return "\n".join(lines)


def _start_sender(network: GatewayNetwork, directory: Path, certificate: public_ca.ServerCertificate) -> Postfix:
    """A transport for each level, with and without trust in the gateway's CA."""
    trusting = "|".join(action.name for action in ACTIONS if action.trusted)
    routes, services = [], ""
    for level in LEVELS:
        routes += [
            f"/^{level.name}@({trusting})(-plain)?\\.example$/ {level.name}-trusting:",
            f"/^{level.name}@/ {level.name}:",
        ]
        for name, ca in ((level.name, certificate.ca), (f"{level.name}-trusting", directory / "trusted.pem")):
            settings = {**level.settings, "smtp_tls_CAfile": str(ca)}
            if "smtp_tls_fingerprint_digest" in settings:
                settings["smtp_tls_fingerprint_cert_match"] = certificate.fingerprint
            services += (
                f"{name} unix - - n - - smtp {' '.join(f'-o {key}={value}' for key, value in settings.items())}\n"
            )
    (directory / "routes").write_text("\n".join(routes) + "\n")
    settings = {
        "transport_maps": f"regexp:{directory}/routes", "smtp_dns_support_level": "dnssec",
        "smtp_tls_loglevel": "1", "smtp_connection_cache_on_demand": "no",
        "minimal_backoff_time": "1h", "maximal_backoff_time": "1h", "queue_run_delay": "1h",
    }  # fmt: skip
    return Postfix.start(
        network.sender, directory / "sender", "sender.example", ("sender.example",), {}, settings, services
    )


@dataclass(frozen=True)
class Found:
    """Of each level and action what became of it; the gateway's log, and what was on the wire on both sides of it."""

    outcomes: dict[tuple[str, str], Outcome]
    log: str
    clients: list[Stream]
    servers: list[Stream]


def find_all(network: GatewayNetwork, directory: Path) -> Found:
    """Try all."""
    outcomes: dict[tuple[str, str], Outcome] = {}
    log = ""
    direct, *others = ACTIONS
    with (
        open_lab(network, directory) as lab,
        Capture("lan", network.gateway) as clients,
        Capture("wan", network.gateway) as servers,
    ):
        outcomes |= lab.outcomes(LEVELS, [direct])
        for dane in ("pass", "terminate"):
            levels = [level for level in LEVELS if level.dane == dane]
            instance = lab.instance(dane)
            with instance.running():
                lab.trust((instance.state / "tls/ca.pem").read_text())
                outcomes |= lab.outcomes(levels, others)
            log += instance.log
    to_mail = [[each for each in leg.streams if each.port == SMTP] for leg in (clients, servers)]
    check_legs(*to_mail)
    return Found(outcomes, log, *to_mail)
