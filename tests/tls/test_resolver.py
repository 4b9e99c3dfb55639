"""TLSA records and addresses, asked of a real resolver that validates a zone which a real server signs."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import pytest
import uvloop

from proxsmtp_tp.net.tls_resolver import CACHE_MAX, Dane, Resolver, local_nameservers
from proxsmtp_tp.tls.levels import TlsaState
from tests.tls.dns import Dns

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SERVER, SERVER_V6 = "192.0.2.25", "2001:db8::25"
KEY = "ab" * 32
ZONE = f"""mx.example. 60 A {SERVER}
mx.example. 60 A 192.0.2.26
mx.example. 60 AAAA {SERVER_V6}
_25._tcp.mx.example. 60 TLSA 3 1 1 {KEY}
_25._tcp.mx.example. 60 TLSA 0 0 1 {KEY}
_465._tcp.mx.example. 60 TLSA 1 0 1 {KEY}
alias.example. 60 CNAME mx.example.
own.example. 60 CNAME plain.example.
_25._tcp.own.example. 60 TLSA 2 0 1 {KEY}
plain.example. 60 A {SERVER}
to-insecure.example. 60 CNAME a.insecure.
_25._tcp.to-insecure.example. 60 TLSA 3 1 1 {KEY}
to-bogus.example. 60 A {SERVER}
_25._tcp.to-bogus.example. 60 CNAME a.bogus.
"""
INSECURE = f"a.insecure. 60 A {SERVER}\n_25._tcp.a.insecure. 60 TLSA 3 1 1 {KEY}\n"
BOGUS = f"a.bogus. 60 A {SERVER}\n_25._tcp.a.bogus. 60 TLSA 3 1 1 {KEY}\n"


@pytest.fixture(scope="module")
def zones(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dns]:
    """For all tests of this file."""
    with Dns(tmp_path_factory.mktemp("dns"), ZONE, insecure=INSECURE, bogus=BOGUS) as running:
        yield running


def look_up(zones: Dns, name: str, port: int = 25, server: str = SERVER) -> Dane:
    """One question, in the event loop of a worker."""

    async def ask() -> Dane:
        return await Resolver([zones.nameserver]).look_up(name, port, server)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(ask())


def test_usable_records_of_a_name_that_is_the_dialled_address(zones: Dns) -> None:
    found = look_up(zones, "MX.example.")
    assert (found.state, found.bound, found.names) == (TlsaState.USABLE, True, ("mx.example",))
    assert [str(record) for record in found.records] == ["3 1 1 abababababababab.."]


def test_each_address_of_the_name_is_the_server(zones: Dns) -> None:
    assert look_up(zones, "mx.example", server="192.0.2.26").bound
    assert look_up(zones, "mx.example", server=SERVER_V6).bound


def test_another_address_is_not_the_server(zones: Dns) -> None:
    for other in ("192.0.2.27", "2001:db8::26"):
        found = look_up(zones, "mx.example", server=other)
        assert (found.state, found.bound) == (TlsaState.USABLE, False)


def test_records_that_are_not_for_smtp(zones: Dns) -> None:
    assert look_up(zones, "mx.example", port=465).state is TlsaState.UNUSABLE


def test_no_records(zones: Dns) -> None:
    found = look_up(zones, "plain.example")
    assert (found.state, found.bound) == (TlsaState.NONE, True)
    assert look_up(zones, "nothing.example") == Dane(TlsaState.NONE, reason="no signed TLSA records")


def test_an_alias_has_the_records_of_its_target(zones: Dns) -> None:
    found = look_up(zones, "alias.example")
    assert (found.state, found.names, found.bound) == (TlsaState.USABLE, ("mx.example", "alias.example"), True)


def test_otherwise_an_alias_has_its_own(zones: Dns) -> None:
    found = look_up(zones, "own.example")
    assert (found.state, found.names) == (TlsaState.USABLE, ("own.example",))
    assert found.records[0].usage == 2


@pytest.mark.parametrize("name", ["a.insecure", "to-insecure.example"])
def test_what_is_not_signed_is_not_believed(zones: Dns, name: str) -> None:
    assert look_up(zones, name) == Dane(TlsaState.NONE, reason="the address of the name is not signed")


def test_a_bogus_address_is_a_failure(zones: Dns) -> None:
    found = look_up(zones, "a.bogus")
    assert (found.state, found.bound, found.reason) == (TlsaState.FAILED, False, "a.bogus A: SERVFAIL")


def test_bogus_records_are_a_failure_and_not_none(zones: Dns) -> None:
    assert look_up(zones, "to-bogus.example").state is TlsaState.FAILED


def test_the_resolver_is_probed(zones: Dns, tmp_path: Path) -> None:
    with Dns(tmp_path / "dns", ZONE, port=5353, authority_port=5301, validates=False) as not_validating:
        assert asyncio.run(Resolver([zones.nameserver]).validates())
        assert not asyncio.run(Resolver([not_validating.nameserver]).validates())
        assert look_up(not_validating, "mx.example").state is TlsaState.NONE


def test_a_resolver_that_is_not_there_is_a_failure() -> None:
    found = asyncio.run(Resolver([("127.0.0.1", 5999)]).look_up("mx.example", 25, SERVER))
    assert found.state is TlsaState.FAILED
    assert not asyncio.run(Resolver([("127.0.0.1", 5999)]).validates())


def test_the_second_resolver_is_asked(zones: Dns) -> None:
    found = asyncio.run(Resolver([("127.0.0.1", 5999), zones.nameserver]).look_up("mx.example", 25, SERVER))
    assert found.state is TlsaState.USABLE


def test_an_answer_that_is_none_is_a_failure() -> None:
    """A resolver that answers with other octets."""

    async def run() -> Dane:
        loop = asyncio.get_running_loop()

        class Noise(asyncio.DatagramProtocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                self.transport = transport

            def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
                self.transport.sendto(data[:2] + b"\x81\x80" + b"\xff" * 20, addr)  # type: ignore[attr-defined]

        transport, _ = await loop.create_datagram_endpoint(Noise, ("127.0.0.1", 5998))
        try:
            return await Resolver([("127.0.0.1", 5998)]).look_up("mx.example", 25, SERVER)
        finally:
            transport.close()

    assert asyncio.run(run()).state is TlsaState.FAILED


def test_clients_of_one_server_ask_once_and_then_not_at_all(zones: Dns, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        now = [0.0]
        resolver = Resolver([zones.nameserver], lambda: now[0])
        asked = []
        ask = resolver._ask

        async def count(name: str, kind: str) -> object:
            asked.append((name, kind))
            return await ask(name, kind)

        monkeypatch.setattr(resolver, "_ask", count)
        await asyncio.gather(*(resolver.look_up("mx.example", 25, SERVER) for _ in range(20)))
        await resolver.look_up("mx.example", 25, "192.0.2.27")
        assert asked == [("mx.example", "A"), ("_25._tcp.mx.example", "TLSA")]
        now[0] = 61.0  # the records have a TTL of 60 s
        await resolver.look_up("mx.example", 25, SERVER)
        assert len(asked) == 4

    asyncio.run(run())


def test_a_client_that_leaves_takes_the_answer_from_no_other(zones: Dns) -> None:
    async def run() -> None:
        resolver = Resolver([zones.nameserver])
        first = asyncio.ensure_future(resolver.look_up("mx.example", 25, SERVER))
        second = asyncio.ensure_future(resolver.look_up("mx.example", 25, SERVER))
        await asyncio.sleep(0)
        first.cancel()
        assert (await second).state is TlsaState.USABLE

    asyncio.run(run())


def test_a_query_without_a_waiting_caller_ends() -> None:
    """A client that says a name, and leaves while the name's servers are silent, leaves no task and no socket."""

    async def run() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
            silent.bind(("127.0.0.1", 0))
            resolver = Resolver([silent.getsockname()])
            waiting = [asyncio.ensure_future(resolver.look_up(f"m{n // 2}.example", 25, SERVER)) for n in range(20)]
            await asyncio.sleep(0.1)
            for one in waiting[::2]:
                one.cancel()
            await asyncio.sleep(0.1)
            assert len(resolver._asked) == 10
            for one in waiting[1::2]:
                one.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
            await asyncio.sleep(0.1)
            assert not resolver._asked
            assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(run())


def test_the_cache_is_bounded() -> None:
    async def run() -> None:
        resolver = Resolver([("127.0.0.1", 1)])

        for number in range(CACHE_MAX + 5):
            resolver._kept[f"m{number}.example", 25, 4] = resolver._keep(Dane(TlsaState.NONE), 5)
        await resolver._find("mx.example", 25, 4)
        assert len(resolver) == CACHE_MAX

    asyncio.run(run())


def test_without_a_resolver_of_this_host_there_are_no_records(tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    file.write_text("# nameserver 127.0.0.1\nsearch example\nnameserver 192.0.2.53\nnameserver\nnameserver nonsense\n")
    assert local_nameservers(file) == ()
    assert asyncio.run(Resolver(()).look_up("mx.example", 25, SERVER)).state is TlsaState.NONE
    file.write_text("nameserver 192.0.2.53\nnameserver 127.0.0.53\nnameserver ::1\n")
    assert local_nameservers(file) == (("127.0.0.53", 53), ("::1", 53))
    assert local_nameservers(tmp_path / "missing") == ()


def test_a_unix_socket_has_no_records(zones: Dns) -> None:
    assert look_up(zones, "mx.example", server="").state is TlsaState.NONE
