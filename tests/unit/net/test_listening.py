"""Listening sockets: what is bound, what is kept over a reload, and errors that name the fix."""

from __future__ import annotations

import errno
import os
import socket
import stat
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.config.addresses import Address, InetAddress, UnixAddress
from proxsmtp_tp.config.settings import RuleMode, Settings, TransparentProxy
from proxsmtp_tp.net.listening import (
    IPV6_TRANSPARENT,
    Endpoint,
    ListenError,
    Listeners,
    close_listeners,
    endpoints,
    open_listeners,
    renew_listeners,
    stop_listening,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LOOPBACK = InetAddress("127.0.0.1", 0)


@pytest.fixture
def renew() -> Iterator[Callable[..., Listeners]]:
    """`renew_listeners` whose sockets are closed after the test."""
    with ExitStack() as stack:

        def call(*listen: Address, existing: Listeners | None = None, **more: object) -> Listeners:
            listeners = renew_listeners(Settings(listen=listen, **more), existing or {})  # type: ignore[arg-type]
            stack.callback(close_listeners, listeners)
            return listeners

        yield call


def test_a_port_alone_is_both_ip_versions() -> None:
    four, six = endpoints(Settings())
    assert (four.family, four.address, four.optional) == (socket.AF_INET, ("0.0.0.0", 10025), False)
    assert (six.family, six.address, six.optional) == (socket.AF_INET6, ("::", 10025), True)


def test_the_sockets_of_a_port_alone(renew: Callable[..., Listeners]) -> None:
    four, six = renew(InetAddress("", 0)).values()
    assert six.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1
    for listener in (four, six):
        assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
        assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) == 1
        assert not listener.getblocking()
        assert not listener.get_inheritable()


def test_both_versions_may_have_one_port_each(renew: Callable[..., Listeners]) -> None:
    [six] = renew(InetAddress("::", 0)).values()
    port = six.getsockname()[1]
    [four] = renew(InetAddress("0.0.0.0", port)).values()
    assert four.getsockname()[1] == port


def test_a_machine_without_ipv6_has_one_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.socket

    def without(family: int, kind: int) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return real(family, kind)

    monkeypatch.setattr(socket, "socket", without)
    listeners = open_listeners(Settings(listen=(InetAddress("", 0),)))
    assert [listener.family for listener in listeners] == [socket.AF_INET]
    listeners[0].close()
    with pytest.raises(ListenError, match="Address family"):
        open_listeners(Settings(listen=(InetAddress("::1", 0),)))


def test_a_name_is_looked_up(renew: Callable[..., Listeners]) -> None:
    listeners = renew(InetAddress("localhost", 0))
    assert {sock.getsockname()[0] for sock in listeners.values()} <= {"127.0.0.1", "::1"}
    with pytest.raises(ListenError, match="the name is unknown"):
        renew(InetAddress("name.invalid", 0))


def test_the_queue_is_as_long_as_the_kernel_allows(renew: Callable[..., Listeners]) -> None:
    [listener] = renew(LOOPBACK).values()
    with ExitStack() as stack:
        for _ in range(300):  # more than SOMAXCONN of the headers
            client = stack.enter_context(socket.socket())
            client.settimeout(10)
            client.connect(listener.getsockname())


def test_a_unix_socket_for_everybody_whatever_the_umask(renew: Callable[..., Listeners], tmp_path: Path) -> None:
    path = tmp_path / "s"
    mask = os.umask(0o077)
    try:
        renew(UnixAddress(str(path)))
        assert os.umask(0o077) == 0o077
    finally:
        os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666


def test_a_dead_unix_socket_is_replaced_and_a_live_one_is_not(renew: Callable[..., Listeners], tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    renew(UnixAddress(str(path)))
    with pytest.raises(ListenError, match="another program listens there"):
        renew(UnixAddress(str(path)))
    assert path.is_socket()


def test_a_file_is_never_removed(renew: Callable[..., Listeners], tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("mail")
    with pytest.raises(ListenError, match="is no socket"):
        renew(UnixAddress(str(path)))
    assert path.read_text() == "mail"


def test_closing_removes_the_unix_socket_once(renew: Callable[..., Listeners], tmp_path: Path) -> None:
    path = tmp_path / "s"
    listeners = renew(UnixAddress(str(path)))
    close_listeners(listeners)
    assert not path.exists()
    path.write_text("another's")
    close_listeners(listeners)
    assert path.exists()


def test_a_port_that_is_taken(renew: Callable[..., Listeners]) -> None:
    [listener] = renew(LOOPBACK).values()
    port = listener.getsockname()[1]
    with pytest.raises(ListenError, match=rf"127\.0\.0\.1:{port}.*ss -ltnp 'sport = :{port}'"):
        renew(InetAddress("127.0.0.1", port))


def test_an_address_that_is_not_ours(renew: Callable[..., Listeners]) -> None:
    with pytest.raises(ListenError, match="no such address"):
        renew(InetAddress("192.0.2.1", 0))
    with pytest.raises(ListenError, match=r"\[2001:db8::1\]:0.*no such address"):
        renew(InetAddress("2001:db8::1", 0))


def test_after_an_error_nothing_is_open(renew: Callable[..., Listeners], tmp_path: Path) -> None:
    path = tmp_path / "s"
    before = descriptors()
    with pytest.raises(ListenError):
        renew(UnixAddress(str(path)), UnixAddress("/nowhere/s"))
    with pytest.raises(ListenError):
        renew(LOOPBACK, InetAddress("192.0.2.1", 0))
    assert descriptors() == before


def test_a_working_socket_is_kept(renew: Callable[..., Listeners], tmp_path: Path) -> None:
    one, two, three = (UnixAddress(str(tmp_path / name)) for name in "123")
    old = renew(one, two)
    new = renew(two, three, existing=old)
    assert new[Endpoint(socket.AF_UNIX, two.path)] is old[Endpoint(socket.AF_UNIX, two.path)]
    assert set(new.values()) & set(old.values()) == {old[Endpoint(socket.AF_UNIX, two.path)]}
    with pytest.raises(ListenError):
        renew(two, UnixAddress("/nowhere/s"), existing=new)
    assert all(sock.fileno() != -1 for sock in new.values())


def descriptors() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


def transparency(listener: socket.socket) -> int:
    if listener.family == socket.AF_INET6:
        return listener.getsockopt(socket.IPPROTO_IPV6, IPV6_TRANSPARENT)
    return listener.getsockopt(socket.IPPROTO_IP, socket.IP_TRANSPARENT)


def may_be_transparent() -> bool:
    with socket.socket() as probe:
        try:
            probe.setsockopt(socket.IPPROTO_IP, socket.IP_TRANSPARENT, 1)
        except PermissionError:
            return False
        return True


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_transparent_where_it_is_asked_for(renew: Callable[..., Listeners], host: str) -> None:
    where = InetAddress(host, 0)
    [plain] = renew(where).values()
    assert transparency(plain) == 0
    expected = int(may_be_transparent())
    [full] = renew(where, transparent_proxy=TransparentProxy.FULL).values()
    assert transparency(full) == expected
    if expected:
        [tproxy] = renew(where, rule_mode=RuleMode.TPROXY).values()
        assert transparency(tproxy) == 1


def test_tproxy_without_the_right_to_it(renew: Callable[..., Listeners], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(socket.socket, "setsockopt", refuse)
    monkeypatch.setattr("proxsmtp_tp.net.listening._prepare", _prepare_transparent_only)
    with pytest.raises(ListenError, match="CAP_NET_RAW"):
        renew(LOOPBACK, rule_mode=RuleMode.TPROXY)
    renew(LOOPBACK, transparent_proxy=TransparentProxy.FULL)


def _prepare_transparent_only(listener: socket.socket, endpoint: Endpoint) -> None:
    from proxsmtp_tp.net.listening import _make_transparent

    if endpoint.transparent:
        _make_transparent(listener, endpoint)


def test_a_kept_socket_becomes_transparent(renew: Callable[..., Listeners]) -> None:
    old = renew(LOOPBACK)
    new = renew(LOOPBACK, existing=old, transparent_proxy=TransparentProxy.FULL)
    assert list(new.values()) == list(old.values())
    assert transparency(*new.values()) == int(may_be_transparent())


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6, socket.AF_UNIX])
def test_a_client_in_the_queue_is_reset_at_once_when_listening_ends(
    tmp_path: Path, renew: Callable[..., Listeners], family: socket.AddressFamily
) -> None:
    """Although other processes have the socket, too; and the address can be bound anew."""
    hosts = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}
    with ExitStack() as stack:
        if family == socket.AF_UNIX:
            where: Address = UnixAddress(str(tmp_path / "s"))
        else:
            free = stack.enter_context(socket.create_server((hosts[family], 0), family=family))
            where = InetAddress(hosts[family], free.getsockname()[1])
            free.close()
        (listener,) = renew(where).values()
        in_a_worker = stack.enter_context(listener.dup())
        clients = [stack.enter_context(socket.socket(family)) for _ in range(4)]
        for client in clients[:3]:
            client.settimeout(20)
            client.connect(listener.getsockname())
        stop_listening([listener])
        stop_listening([in_a_worker])
        for client in clients[:3]:
            try:
                assert client.recv(1) == b""
            except ConnectionResetError:
                assert family != socket.AF_UNIX
        with pytest.raises(ConnectionRefusedError):
            clients[3].connect(listener.getsockname())
        (anew,) = renew(where).values()
        assert anew.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
