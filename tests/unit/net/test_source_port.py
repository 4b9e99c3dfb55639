"""Full transparent mode: which source ports are tried, and how a socket gets the client's address."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.net import dialling, source_port
from proxsmtp_tp.net.dialling import DialError, dial
from proxsmtp_tp.net.original_destination import Endpoint
from proxsmtp_tp.net.source_port import IP_TRANSPARENT, IPV6_TRANSPARENT, Source, port_range, reserved_ports
from tests.unit.net.proxy_harness import descriptors
from tests.unit.net.test_listening import may_be_transparent

if TYPE_CHECKING:
    from pathlib import Path

MX = Endpoint("198.51.100.25", 25)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The kernel's settings, to be changed: ports 100 to 103."""
    monkeypatch.setattr(source_port, "_SETTINGS", tmp_path)
    (tmp_path / "ip_local_port_range").write_text("100\t103\n")
    (tmp_path / "ip_local_reserved_ports").write_text("\n")
    return tmp_path


def none_in_use(_ours: tuple[str, int], _theirs: tuple[str, int]) -> bool:
    """The client has no connection."""
    return False


def test_every_port_where_there_are_few(settings: Path) -> None:
    assert sorted(Source("192.0.2.1", none_in_use).ports(MX)) == [100, 101, 102, 103]


def test_no_port_that_another_program_holds(settings: Path) -> None:
    (settings / "ip_local_reserved_ports").write_text("22,101-102,8080\n")
    assert sorted(Source("192.0.2.1", none_in_use).ports(MX)) == [100, 103]


def test_none_of_the_clients_own_towards_this_server(settings: Path) -> None:
    own = {(("192.0.2.1", 100), MX), (("192.0.2.1", 102), MX), (("192.0.2.1", 101), MX._replace(port=587))}
    source = Source("192.0.2.1", lambda ours, theirs: (ours, theirs) in own)
    assert sorted(source.ports(MX)) == [101, 103]


def test_a_limited_number_where_there_are_many(settings: Path) -> None:
    (settings / "ip_local_port_range").write_text("1024 65535")
    found = list(Source("192.0.2.1", none_in_use).ports(MX))
    assert len(found) == source_port.TRIES
    assert all(1024 <= port <= 65535 for port in found)
    assert found != list(Source("192.0.2.1", none_in_use).ports(MX))


def test_without_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_port, "_SETTINGS", tmp_path / "none")
    assert (port_range(), reserved_ports()) == (range(32768, 61000), ())


@pytest.mark.parametrize("ip", ["192.0.2.77", "2001:db8::77"])
def test_from_the_clients_own_address(ip: str) -> None:
    """Without CAP_NET_RAW (ip(7)) it is an error that the client learns of, not another address."""
    with dialling.open_socket(Endpoint(ip, 25)) as sock:
        if not may_be_transparent():
            with pytest.raises(PermissionError):
                Source(ip, none_in_use).bind(sock, 40000)
            return
        Source(ip, none_in_use).bind(sock, 40000)
        assert sock.getsockname()[:2] == (ip, 40000)
        v6 = ":" in ip
        level, option = (socket.IPPROTO_IPV6, IPV6_TRANSPARENT) if v6 else (socket.IPPROTO_IP, IP_TRANSPARENT)
        assert sock.getsockopt(level, option) == 1
        with dialling.open_socket(Endpoint(ip, 25)) as other:  # towards another server
            Source(ip, none_in_use).bind(other, 40000)


async def test_a_port_that_is_taken_is_passed_by(settings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a socket of ours that has it towards this server already; and when all are, the client gets the reason."""
    monkeypatch.setattr(Source, "bind", lambda source, sock, port: sock.bind((source.ip, port)))
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_server(("127.0.0.1", 0)) as busy:
        target, taken = Endpoint(*server.getsockname()), busy.getsockname()[1]
        with socket.create_server(("127.0.0.1", 0)) as probe:
            free = probe.getsockname()[1]
        ports = iter([taken, free])
        monkeypatch.setattr(Source, "ports", lambda _source, _target: ports)
        source = Source("127.0.0.1", none_in_use)
        sock, _ = await dial([target], source=source, time_out=5, started=lambda _sock, _target: None)
        with sock:
            assert sock.getsockname() == ("127.0.0.1", free)
        before = descriptors()
        monkeypatch.setattr(Source, "ports", lambda _source, _target: iter([taken]))
        with pytest.raises(DialError, match="no source port is free for this server"):
            await dial([target], source=source, time_out=5, started=lambda _sock, _target: None)
        assert descriptors() == before


async def test_another_error_ends_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    before = descriptors()
    monkeypatch.setattr(Source, "bind", lambda source, sock, port: sock.bind((source.ip, port)))
    source = Source("2001:db8::1", none_in_use)  # of the other family: no port of it helps
    with pytest.raises(DialError, match=r"127\.0\.0\.1:25: "):
        await dial([Endpoint("127.0.0.1", 25)], source=source, time_out=5, started=lambda _sock, _target: None)
    assert descriptors() == before


def test_a_worker_keeps_the_files_open_and_sees_each_change(settings: Path) -> None:
    before = descriptors()
    known = source_port.PortSettings()
    source = Source("192.0.2.1", none_in_use, known)
    assert sorted(source.ports(MX)) == [100, 101, 102, 103]
    assert len(descriptors()) == len(before) + 2
    (settings / "ip_local_port_range").write_text("200 202\n")
    assert sorted(source.ports(MX)) == [200, 201, 202]
    (settings / "ip_local_reserved_ports").write_text("22,201-300\n")
    assert sorted(source.ports(MX)) == [200]
    (settings / "ip_local_port_range").write_text("rubbish\n")
    assert known()[0] == range(32768, 61000)
    known.close()
    known.close()
    assert descriptors() == before


def test_a_worker_without_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_port, "_SETTINGS", tmp_path / "none")
    assert source_port.PortSettings()() == (range(32768, 61000), ())
