"""TLSA records of a server, and whether a name is that of the dialled address, from a resolver of this host.

The resolver validates DNSSEC. Its answer (the AD bit, RFC 4035 section 3.2.3) counts only where nobody can change it on
the way: on a loopback address. Without such a resolver there are no TLSA records, as in Postfix.

`look_up` waits for the network, never blocks, and never raises: what cannot be known is FAILED, and then no
mail goes in clear.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from proxsmtp_tp.certificates.libraries import load
from proxsmtp_tp.tls.levels import TlsaState
from proxsmtp_tp.tls.tlsa import Tlsa, usable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

log = logging.getLogger(__name__)

PURPOSE: Final = "asking for TLSA records (UpstreamTls: dane, TlsDane)"
RESOLV_CONF: Final = Path("/etc/resolv.conf")
SECONDS: Final = 3.0
"""For one question to one resolver; Postfix and glibc wait five, but a client waits for our answer here."""
TRIES: Final = 2
CACHE_MAX: Final = 10_000
"""Names, the least recently used go first: about 10 MiB."""
TTL_MAX: Final = 3600.0
"""Seconds: a resolver keeps what is valid for longer."""
TTL_MIN: Final = 5.0
"""Seconds, and how long a failure is kept: many clients of one server ask once."""
TTL_NONE: Final = 60.0
"""Seconds for "there is nothing": a new record is used soon."""
_PORT: Final = 53

Nameserver = tuple[str, int]
_Key = tuple[str, int, int]
"""Name, port and version of IP."""


@dataclass(frozen=True, slots=True)
class Dane:
    """What DNS says, secured by DNSSEC, of a server's name.

    `records`: the usable ones. `names`: one of them must be in the certificate under a `2 x x` record. `bound`: the
    name is that of the dialled address; without it the name in a client's hello is no evidence.
    """

    state: TlsaState
    records: tuple[Tlsa, ...] = ()
    names: tuple[str, ...] = ()
    bound: bool = False
    reason: str = ""
    """Why there is nothing, for the log."""


@dataclass(frozen=True, slots=True)
class _Kept:
    dane: Dane
    addresses: frozenset[str]
    until: float


@dataclass(slots=True)
class _Question:
    """`waiting`: how many clients wait for the answer."""

    task: asyncio.Task[_Kept]
    waiting: int = 0


@dataclass(frozen=True, slots=True)
class _Answer:
    """`secure`: the resolver has validated it. `rdata` is empty if there is nothing. `name`: the one at the end of all
    aliases."""

    secure: bool
    rdata: tuple[Any, ...]
    name: str
    ttl: float


class _NoAnswerError(Exception):
    """SERVFAIL (which a bogus answer is), or no answer in time."""


def local_nameservers(file: Path = RESOLV_CONF) -> tuple[Nameserver, ...]:
    """The resolvers in resolv.conf(5) on loopback addresses; those on other hosts are not trusted."""
    found = []
    with suppress(OSError):
        for line in file.read_text("utf-8", "replace").splitlines():
            words = line.split()
            with suppress(ValueError):
                if len(words) > 1 and words[0] == "nameserver" and ip_address(words[1]).is_loopback:
                    found.append((words[1], _PORT))
    return tuple(found)


class Resolver:
    """One for each worker. Raises MissingLibraryError if dnspython is not installed."""

    def __init__(self, nameservers: Sequence[Nameserver], clock: Callable[[], float] = time.monotonic) -> None:
        self._nameservers = tuple(nameservers)
        self._clock = clock
        self._message = load("dns.message", PURPOSE)
        self._query = load("dns.asyncquery", PURPOSE)
        self._flags = load("dns.flags", PURPOSE)
        self._types = load("dns.rdatatype", PURPOSE)
        self._rcode = load("dns.rcode", PURPOSE)
        self._error = load("dns.exception", PURPOSE).DNSException
        self._kept: OrderedDict[_Key, _Kept] = OrderedDict()
        self._asked: dict[_Key, _Question] = {}

    def __len__(self) -> int:
        """How many names are kept."""
        return len(self._kept)

    async def look_up(self, name: str, port: int, server: str) -> Dane:
        """The TLSA records of a server of this name, and whether `server`, the dialled address, has it."""
        if not self._nameservers:
            return Dane(TlsaState.NONE, reason="no resolver on a loopback address in /etc/resolv.conf")
        try:
            address = ip_address(server)
        except ValueError:
            return Dane(TlsaState.NONE, reason="the server has no address")
        key = name.lower().removesuffix("."), port, address.version
        kept = self._kept.get(key)
        if kept is None or self._clock() >= kept.until:
            kept = await self._find_once(key)
        else:
            self._kept.move_to_end(key)
        return replace(kept.dane, bound=str(address) in kept.addresses)

    async def validates(self) -> bool:
        """Whether a resolver is there and validates: the root zone is signed (as Postfix, dnssec_probe)."""
        try:
            return (await self._ask(".", "NS")).secure
        except _NoAnswerError:
            return False

    async def _find_once(self, key: _Key) -> _Kept:
        """Ask once for all who wait. When nobody waits any more, the question ends, and gives its socket back: clients
        that come, say a name and leave cannot take all descriptors.
        """
        question = self._asked.get(key)
        if question is None:
            task = asyncio.get_running_loop().create_task(self._find(*key))
            question = self._asked[key] = _Question(task)
        question.waiting += 1
        try:
            return await asyncio.shield(question.task)  # a client that leaves does not cancel it for others
        finally:
            question.waiting -= 1
            if not question.waiting:
                del self._asked[key]
                question.task.cancel()

    async def _find(self, name: str, port: int, version: int) -> _Kept:
        kept = await self._found(name, port, version)
        self._kept[name, port, version] = kept
        self._kept.move_to_end((name, port, version))
        while len(self._kept) > CACHE_MAX:
            self._kept.popitem(last=False)
        return kept

    async def _found(self, name: str, port: int, version: int) -> _Kept:
        """RFC 7672 section 2.2.2: the addresses must be secure, then the TLSA records of the name at the end of the
        aliases count, then those of the name itself.
        """
        ttl, addresses = TTL_MIN, frozenset[str]()
        try:
            found = await self._ask(name, "A" if version == 4 else "AAAA")
            ttl = found.ttl
            if not found.secure:
                return self._keep(Dane(TlsaState.NONE, reason="the address of the name is not signed"), ttl)
            addresses = frozenset(str(ip_address(each.address)) for each in found.rdata)
            for base in dict.fromkeys((found.name, name)):
                answer = await self._ask(f"_{port}._tcp.{base}", "TLSA")
                ttl = min(ttl, answer.ttl)
                if answer.secure and answer.rdata:
                    dane = _of_records(answer.rdata, tuple(dict.fromkeys((base, name))))
                    return self._keep(dane, ttl, addresses)
        except _NoAnswerError as error:
            return self._keep(Dane(TlsaState.FAILED, reason=str(error)), TTL_MIN, addresses)
        return self._keep(Dane(TlsaState.NONE, reason="no signed TLSA records"), ttl, addresses)

    def _keep(self, dane: Dane, ttl: float, addresses: frozenset[str] = frozenset()) -> _Kept:
        return _Kept(dane, addresses, self._clock() + min(TTL_MAX, max(TTL_MIN, ttl)))

    async def _ask(self, name: str, kind: str) -> _Answer:
        """One question, to each resolver in turn. Raises _NoAnswerError."""
        reason = "no resolver"
        for _ in range(TRIES):
            for where, port in self._nameservers:
                try:
                    question = self._message.make_query(name, kind, want_dnssec=True)
                    response, _ = await self._query.udp_with_fallback(question, where, timeout=SECONDS, port=port)
                except (self._error, OSError, EOFError, ValueError) as error:
                    reason = f"{name} {kind}: {error or type(error).__name__}"
                    continue
                if response.rcode() in {self._rcode.NOERROR, self._rcode.NXDOMAIN}:
                    return self._read(response, name, kind)
                reason = f"{name} {kind}: {self._rcode.to_text(response.rcode())}"
        raise _NoAnswerError(reason)

    def _read(self, response: Any, name: str, kind: str) -> _Answer:
        secure = bool(response.flags & self._flags.AD)
        wanted = self._types.from_text(kind)
        sets = [each for each in response.answer if each.rdtype == wanted]
        if not sets or response.rcode() == self._rcode.NXDOMAIN:
            return _Answer(secure, (), name, TTL_NONE)
        # The resolver follows the aliases: the set of the wanted type has the name at their end.
        last = sets[-1]
        ttl = float(min(each.ttl for each in response.answer))
        return _Answer(secure, tuple(last), last.name.to_text(omit_final_dot=True).lower(), ttl)


def _of_records(rdata: Sequence[Any], names: tuple[str, ...]) -> Dane:
    records = tuple(Tlsa(int(each.usage), int(each.selector), int(each.mtype), bytes(each.cert)) for each in rdata)
    good = usable(records)
    if not good:
        return Dane(TlsaState.UNUSABLE, names=names, reason="no TLSA record is usable for SMTP (RFC 7672 section 3.1)")
    return Dane(TlsaState.USABLE, good, names)
