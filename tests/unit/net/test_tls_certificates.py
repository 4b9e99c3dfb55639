"""The certificates that a worker keeps: own ones first, bounded, made once, made anew in time."""

from __future__ import annotations

import asyncio
import socket
import threading
from contextlib import contextmanager
from ipaddress import ip_network
from typing import TYPE_CHECKING, cast

import pytest

from proxsmtp_tp.certificates.material import CertificateError, Material
from proxsmtp_tp.certificates.requests import Request, decode_request, encode_answer, encode_refusal
from proxsmtp_tp.net import tls_certificates
from proxsmtp_tp.net.tls_certificates import KEPT_MAX, RENEW, Certificates, OwnCertificate, WorkerKeys

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator


DAY = 86400.0
LIFE = 28 * DAY


class Minter:
    """A minting process that makes certificates of nothing but the request."""

    def __init__(self, questions: socket.socket) -> None:
        self.requests: list[Request] = []
        self.now = 0.0
        self.deaths = 0
        """So many questions are not answered first."""
        self._questions = questions

    def run(self) -> None:
        """Until the test ends."""
        while True:
            data, descriptors, _, _ = socket.recv_fds(self._questions, 1 << 16, 1)
            if not data:
                return
            with socket.socket(fileno=descriptors[0]) as asker:
                if self.deaths:
                    self.deaths -= 1
                    continue
                request = decode_request(data)
                self.requests.append(request)
                if request.names == ("bad.example",):
                    asker.send(encode_refusal("no"))
                else:
                    asker.send(encode_answer(Material(repr(request).encode(), b"key", self.now + LIFE)))


@contextmanager
def minter() -> Iterator[tuple[Minter, socket.socket]]:
    """One that runs, and the worker's socket."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    made = Minter(theirs)
    thread = threading.Thread(target=made.run)
    thread.start()
    try:
        with theirs:
            try:
                yield made, ours
            finally:
                ours.close()
                thread.join(30)
    finally:
        ours.close()


def certificates(minting: socket.socket | None, *own: OwnCertificate, now: list[float] | None = None) -> Certificates:
    """Those of a worker; what it gives is the material itself."""
    clock = now or [0.0]
    keys = WorkerKeys(own, minting)
    return Certificates(keys, lambda material, _: cast("ssl.SSLContext", material), lambda: clock[0])


async def get(kept: Certificates, *names: str, verified: bool = True, server: str = "192.0.2.25") -> Material:
    """The material for a client of a server."""
    return cast("Material", await kept.context(names, verified, server))


def test_the_same_names_are_one_certificate_and_both_cas_are_two() -> None:
    with minter() as (made, minting):

        async def run() -> None:
            kept = certificates(minting)
            first = await get(kept, "mx.example", "b.example", "a.example")
            assert await get(kept, "MX.example.", "a.example", "b.example", "a.example") is first
            assert await get(kept, "mx.example", "a.example", "b.example", verified=False) is not first
            assert await get(kept, "a.example", "mx.example", "b.example") is not first  # another common name

        asyncio.run(run())
    assert [request.verified for request in made.requests] == [True, False, True]


@pytest.mark.parametrize(
    ("server", "name"), [("2001:db8::1", "2001:db8::1"), ("", "localhost"), ("/run/mta/smtp", "localhost")]
)
def test_a_server_without_a_name_has_its_address(server: str, name: str) -> None:
    with minter() as (made, minting):
        asyncio.run(get(certificates(minting), "not a name", "", verified=False, server=server))
    assert made.requests[0].names == (name,)


@pytest.mark.parametrize("odd", ["192.0.2.9", "host.123", "1"])
def test_a_name_that_is_an_address_or_none_is_left_out(odd: str) -> None:
    """A server's certificate can have it as a DNS name; as an address ours would vouch for another host."""
    with minter() as (made, minting):
        kept = certificates(minting)
        asyncio.run(get(kept, "mx.example", odd))
        asyncio.run(get(kept, odd))
    assert made.requests == [Request(("mx.example",), verified=True), Request(("192.0.2.25",), verified=False)]


def test_clients_at_once_ask_once() -> None:
    with minter() as (made, minting):

        async def run() -> None:
            kept = certificates(minting)
            assert len(set(map(id, await asyncio.gather(*(get(kept, "mx.example") for _ in range(50)))))) == 1
            first, second = (asyncio.ensure_future(get(kept, "other.example")) for _ in range(2))
            await asyncio.sleep(0)
            first.cancel()
            await second

        asyncio.run(run())
    assert len(made.requests) == 2


def test_a_certificate_is_replaced_after_half_of_its_life() -> None:
    now = [0.0]
    with minter() as (made, minting):

        async def run() -> None:
            kept = certificates(minting, now=now)
            first = await get(kept, "mx.example")
            now[0] = LIFE - RENEW - 1
            assert await get(kept, "mx.example") is first
            now[0] = made.now = LIFE - RENEW
            assert (await get(kept, "mx.example")).ends == now[0] + LIFE

        asyncio.run(run())
    assert len(made.requests) == 2


def test_the_number_that_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert KEPT_MAX <= 10_000
    monkeypatch.setattr(tls_certificates, "KEPT_MAX", 3)
    with minter() as (made, minting):

        async def run() -> None:
            kept = certificates(minting)
            for name in ("a.example", "b.example", "c.example", "a.example", "d.example", "a.example", "b.example"):
                await get(kept, name)
                assert len(kept) <= 3

        asyncio.run(run())
    assert [request.names[0][0] for request in made.requests] == list("abcdb")


def test_a_request_is_repeated_when_the_minting_process_ends() -> None:
    with minter() as (made, minting):
        made.deaths = 3
        asyncio.run(get(certificates(minting), "mx.example"))
    assert len(made.requests) == 1


def test_a_minting_process_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls_certificates, "ASK_SECONDS", 0.3)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs, pytest.raises(CertificateError, match="did not answer"):
        asyncio.run(get(certificates(ours), "mx.example"))


def test_questions_that_no_queue_can_hold_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker is never blocked by them."""
    monkeypatch.setattr(tls_certificates, "ASK_SECONDS", 1.0)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    async def run() -> list[Material | BaseException]:
        kept = certificates(ours)
        return await asyncio.gather(*(get(kept, f"m{n}.example") for n in range(400)), return_exceptions=True)

    with ours, theirs:
        assert {type(each) for each in asyncio.run(run())} == {CertificateError}


def test_a_refusal_is_reported() -> None:
    with minter() as (_, minting), pytest.raises(CertificateError, match=r"^no$"):
        asyncio.run(get(certificates(minting), "bad.example"))


def test_without_a_ca() -> None:
    with pytest.raises(CertificateError, match="there is no CA, and no TlsCertificate for this server"):
        asyncio.run(get(certificates(None), "mx.example"))


def test_own_certificates_come_first_in_their_order() -> None:
    one, two = Material(b"1", b"", 0), Material(b"2", b"", 0)
    own = OwnCertificate(one, (ip_network("192.0.2.0/24"),)), OwnCertificate(two)
    for server, material in (("192.0.2.25", one), ("198.51.100.1", two), ("2001:db8::1", two), ("", two)):
        for verified in (True, False):
            assert asyncio.run(get(certificates(None, *own), verified=verified, server=server)) is material


def test_a_certificate_that_the_engine_does_not_take() -> None:
    def make(material: Material, versions: object) -> ssl.SSLContext:
        raise ValueError("too short")

    kept = Certificates(WorkerKeys((OwnCertificate(Material(b"", b"", 0)),)), make)
    with pytest.raises(CertificateError, match="too short"):
        asyncio.run(get(kept))


def test_no_key_is_shown() -> None:
    assert "secret" not in repr(Material(b"", b"secret", 0))
