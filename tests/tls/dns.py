"""A signed root zone (knot) and a resolver that validates it (unbound), both on loopback addresses.

The root zone has all names that are signed; `insecure.` is delegated without a signature, `bogus.` with a wrong one.
Run it under `proxsmtp_tp.lab.isolate`: port 53 is that of the namespace.
"""

from __future__ import annotations

import socket
import subprocess
import time
from typing import TYPE_CHECKING, Self

import dns.flags
import dns.message
import dns.query

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from proxsmtp_tp.lab.network import Host

START_SECONDS = 60.0
"""knot makes keys and signs; the machine may be busy."""

_KNOT = """
server:
    listen: 127.0.0.1@{port}
    rundir: {folder}
    user: {user}
log:
  - target: stderr
    any: warning
database:
    storage: {folder}/db
policy:
  - id: one-key
    algorithm: ecdsap256sha256
    single-type-signing: on
template:
  - id: default
    storage: {folder}
    zonefile-sync: -1
    zonefile-load: difference-no-serial
    journal-content: all
zone:
  - domain: .
    file: root.zone
    dnssec-signing: on
    dnssec-policy: one-key
  - domain: insecure.
    file: insecure.zone
  - domain: bogus.
    file: bogus.zone
    dnssec-signing: on
    dnssec-policy: one-key
"""

_UNBOUND = """
server:
{interfaces}
    port: {port}
    username: ""
    chroot: ""
    directory: "{folder}"
    pidfile: "{folder}/unbound.pid"
    use-syslog: no
    verbosity: 0
    do-not-query-localhost: no
    access-control: 0.0.0.0/0 allow
    module-config: "{modules}"
    trust-anchor-file: "{folder}/root.key"
    num-threads: 1
    outgoing-range: 64
    so-rcvbuf: 0
    cache-max-negative-ttl: 1
    serve-expired: no
remote-control:
    control-enable: no
"""
_STUB = 'stub-zone:\n    name: "{zone}"\n    stub-addr: 127.0.0.1@{port}\n    stub-prime: no\n'
_SOA = "{zone} 60 SOA ns.dns.example. mail.dns.example. 1 3600 600 86400 1\n{zone} 60 NS ns.dns.example.\n"
_DELEGATIONS = f"""ns.dns.example. 60 A 127.0.0.1
insecure. 60 NS ns.dns.example.
bogus. 60 NS ns.dns.example.
bogus. 60 DS 1 13 2 {"00" * 32}
"""


class Dns:
    """As a context: both run. `records` are lines of the root zone, `others` of the zones `insecure.` and `bogus.`.

    `host`: where in the lab both run, if not here; the resolver then listens on `addresses`, too.
    """

    def __init__(
        self,
        folder: Path,
        records: str,
        *,
        insecure: str = "",
        bogus: str = "",
        port: int = 53,
        authority_port: int = 5300,
        validates: bool = True,
        host: Host | None = None,
        addresses: tuple[str, ...] = (),
    ) -> None:
        self._host = host
        self._addresses = ("127.0.0.1", *addresses)
        self._authority = authority_port
        self.nameserver = ("127.0.0.1", port)
        self._folder = folder
        self._zones = {"root": (".", records), "insecure": ("insecure.", insecure), "bogus": ("bogus.", bogus)}
        self._modules = "validator iterator" if validates else "iterator"
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        (self._folder / "db").mkdir(parents=True, exist_ok=True)
        for file, (zone, records) in self._zones.items():
            text = _SOA.format(zone=zone) + (_DELEGATIONS if zone == "." else "") + records + "\n"
            (self._folder / f"{file}.zone").write_text(text)
        knot = self._folder / "knot.conf"
        knot.write_text(_KNOT.format(port=self._authority, folder=self._folder, user="root:root"))
        try:
            self._start("knotd", "-c", str(knot))
            self._wait_for_keys()
            self._start_resolver()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in reversed(self._processes):
            process.terminate()
        for process in self._processes:
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes.clear()

    def _start(self, *command: str) -> None:
        with (self._folder / f"{command[0]}.log").open("wb") as log:
            words = self._host.command(*command) if self._host else command
            self._processes.append(subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT))

    def _ask(self, kind: str, port: int) -> dns.message.Message:
        """A question for the root zone. Raises OSError or EOFError."""
        question = dns.message.make_query(".", kind, want_dnssec=True)
        where = ("127.0.0.1", port)
        link = self._host.connect(*where, 5) if self._host else socket.create_connection(where, 5)
        with link:
            link.setblocking(False)  # so dnspython wants it
            return dns.query.tcp(question, where[0], timeout=5, sock=link)

    def _wait_for_keys(self) -> None:
        """Until knot has signed the root zone; its key becomes the trust anchor."""
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            try:
                answer = self._ask("DNSKEY", self._authority)
            except (OSError, EOFError):
                time.sleep(0.1)
                continue
            keys = [rrset for rrset in answer.answer if rrset.rdtype == 48]
            if keys:
                (self._folder / "root.key").write_text("".join(f". 60 IN DNSKEY {key}\n" for key in keys[0]))
                return
            time.sleep(0.1)
        raise AssertionError((self._folder / "knotd.log").read_text())

    def _start_resolver(self) -> None:
        port = self.nameserver[1]
        interfaces = "\n".join(f"    interface: {address}" for address in self._addresses)
        text = _UNBOUND.format(port=port, folder=self._folder, modules=self._modules, interfaces=interfaces)
        text += "".join(_STUB.format(zone=zone, port=self._authority) for zone, _ in self._zones.values())
        (self._folder / "unbound.conf").write_text(text)
        self._start("unbound", "-d", "-c", str(self._folder / "unbound.conf"))
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            try:
                answer = self._ask("NS", port)
            except (OSError, EOFError):
                time.sleep(0.1)
                continue
            if answer.answer and bool(answer.flags & dns.flags.AD) == (self._modules != "iterator"):
                return
            time.sleep(0.1)
        raise AssertionError((self._folder / "unbound.log").read_text())
