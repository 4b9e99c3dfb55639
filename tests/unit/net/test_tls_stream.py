"""A TLS leg without I/O."""

from __future__ import annotations

import pytest

from proxsmtp_tp.net.tls_stream import End
from tests.unit.net.tls_legs import TLS_1_2, TLS_1_3, connected, receive_all

BOTH = pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3])


@BOTH
def test_octets_of_both_directions_arrive(version: int) -> None:
    client, server = connected(version)
    server.write(b"EHLO a\r\n")
    assert client.receive(server.to_send()) == b"EHLO a\r\n"
    client.write(b"250 b\r\n")
    assert server.receive(client.to_send()) == b"250 b\r\n"
    assert client.to_send() == b""


@BOTH
def test_large_messages_are_whole(version: int) -> None:
    client, server = connected(version)
    message = bytes(range(256)) * 4096
    server.write(message)
    assert receive_all(client, server.to_send()) == message


@BOTH
def test_close_notify_is_a_clean_end_and_a_fin_is_not(version: int) -> None:
    client, server = connected(version)
    server.write(b"QUIT\r\n")
    server.close_notify()
    assert client.receive(server.to_send()) == b"QUIT\r\n"
    assert client.end is End.CLEAN
    client.write(b"221 bye\r\n")
    assert server.receive(client.to_send()) == b"221 bye\r\n"
    server.eof()
    assert server.end is End.TRUNCATED
