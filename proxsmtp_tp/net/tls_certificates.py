"""The certificate that a client sees, as a context for its leg: own ones, and those that the minting process makes.

`Certificates` is a worker's. It keeps what was made: a client of the same server waits for nothing.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from array import array
from collections import OrderedDict
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import TYPE_CHECKING, Final

from proxsmtp_tp.certificates.material import CertificateError, Material
from proxsmtp_tp.certificates.names import NAMES_MAX, as_name
from proxsmtp_tp.certificates.requests import ANSWER_MAX, Request, decode_answer, encode_request

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Collection

log = logging.getLogger(__name__)

KEPT_MAX: Final = 10_000
"""Certificates that a worker keeps, the least recently used go first. One has about 2 KiB, and takes half a millisecond
to make."""
RENEW: Final = 14 * 86_400.0
"""Seconds before its end at which a new leaf is made: half of its life (`certificates.leaf.AHEAD`)."""
ASK_SECONDS: Final = 5.0
"""How long a client's handshake waits for the minting process, which may have to start again."""
_PAUSE: Final = 0.1  # seconds until it is asked again


@dataclass(frozen=True, slots=True)
class OwnCertificate:
    """One line `TlsCertificate`, read. `servers`: it is for these destinations only; empty: for all."""

    material: Material
    servers: tuple[IPv4Network | IPv6Network, ...] = ()

    def fits(self, server: str) -> bool:
        """Whether it is for this address of a server; "" (a unix socket) is in no network."""
        if not self.servers:
            return True
        try:
            address = ip_address(server)
        except ValueError:
            return False
        return any(address in network for network in self.servers)


@dataclass(frozen=True, slots=True)
class WorkerKeys:
    """What a worker has from its master: own certificates, and the socket to the minting process, if there is one."""

    own: tuple[OwnCertificate, ...] = ()
    minting: socket.socket | None = None


class Certificates:
    """The contexts for clients' legs in one worker.

    `make` makes a context of a chain and its key, for a client with these versions of TLS; its ValueError says why it
    cannot.
    """

    def __init__(
        self,
        keys: WorkerKeys,
        make: Callable[[Material, Collection[int]], ssl.SSLContext],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._keys = keys
        self._make = make
        self._clock = clock
        self._kept: OrderedDict[Request, tuple[float, Material]] = OrderedDict()
        """With the time, in seconds since the epoch, at which a new one is made."""
        self._asked: dict[Request, asyncio.Task[Material]] = {}

    def __len__(self) -> int:
        """How many made certificates are kept."""
        return len(self._kept)

    async def context(
        self, server_names: tuple[str, ...], verified: bool, server_ip: str, versions: Collection[int] = ()
    ) -> ssl.SSLContext:
        """The context for a client of this server; `versions`: of the client's hello. Raises CertificateError.

        An own certificate for the server comes first. `server_names`: the name in the client's hello, if the server's
        certificate is for it or the server is not `verified`, then the names of the server's certificate. `verified`
        decides which CA signs: True only for a server that is (`tls.facts.Verified.vouched`).
        """
        usable = _usable(server_names)  # an address is never verified, and never the name of a server that is
        wanted = Request(usable, verified) if usable else Request((_address(server_ip),), verified=False)
        material = self.own(server_ip) or await self._made(wanted)
        try:
            return self._make(material, versions)
        except ValueError as error:
            raise CertificateError(str(error)) from error

    def own(self, server: str) -> Material | None:
        """The first own certificate for the address of a server; None: there is none, so one must be made."""
        return next((own.material for own in self._keys.own if own.fits(server)), None)

    async def _made(self, request: Request) -> Material:
        renew_at, kept = self._kept.get(request, (0.0, None))
        if kept is not None and self._clock() < renew_at:
            self._kept.move_to_end(request)
            return kept
        if (task := self._asked.get(request)) is None:
            task = self._asked[request] = asyncio.get_running_loop().create_task(self._mint(request))
            task.add_done_callback(lambda _: self._asked.pop(request, None))
        return await asyncio.shield(task)  # a client that leaves does not cancel it for others

    async def _mint(self, request: Request) -> Material:
        if self._keys.minting is None:
            raise CertificateError("there is no CA, and no TlsCertificate for this server")
        material = await _ask(self._keys.minting, encode_request(request))
        self._kept[request] = (min(material.ends - RENEW, self._clock() + RENEW), material)
        self._kept.move_to_end(request)
        while len(self._kept) > KEPT_MAX:
            self._kept.popitem(last=False)
        return material


def _address(server: str) -> str:
    """What stands for a server without a name; one on a unix socket has no address either."""
    try:
        return str(ip_address(server))
    except ValueError:
        return "localhost"


def _usable(names: tuple[str, ...]) -> tuple[str, ...]:
    """What a certificate can have, each once, in one order: the same names are the same certificate.

    The first stays the first: it is the certificate's common name. Digits after the last dot are of an address, which
    some servers write as a name: ours would say more than theirs, or could not be made.
    """
    found = (as_name(name.encode("utf-8", "replace")) for name in names)
    good = list(dict.fromkeys(name for name in found if not name.rpartition(".")[2].isdecimal() and name))[:NAMES_MAX]
    return (*good[:1], *sorted(good[1:]))


async def _ask(minting: socket.socket, question: bytes) -> Material:
    """Ask the minting process; again, if it dies before it answers. Raises CertificateError."""
    loop = asyncio.get_running_loop()
    end = loop.time() + ASK_SECONDS
    while (left := end - loop.time()) > 0:
        try:
            async with asyncio.timeout(left):
                if answer := await _ask_once(minting, question):
                    return decode_answer(answer)
        except TimeoutError:
            break
        except OSError as error:
            log.debug("the minting process cannot be asked: %s", error)
        await asyncio.sleep(_PAUSE)
    raise CertificateError(f"the minting process did not answer within {ASK_SECONDS:.0f} s")


async def _ask_once(minting: socket.socket, question: bytes) -> bytes:
    """The answer; b"": the process died. Raises OSError; BlockingIOError: many questions wait already."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        ours.setblocking(False)
        with theirs:
            right = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [theirs.fileno()]))
            minting.sendmsg([question], [right], socket.MSG_DONTWAIT)  # send_fds of Python 3.11 ignores its flags
        return await asyncio.get_running_loop().sock_recv(ours, ANSWER_MAX)
