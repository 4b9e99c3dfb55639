"""The groups of TLS 1.3: what our hello offers, and what a client cannot have."""

from __future__ import annotations

import ctypes
import socket
import ssl
import subprocess
import sys
from contextlib import suppress

import pytest

from proxsmtp_tp.net import tls_groups
from proxsmtp_tp.net.tls_contexts import server_context
from proxsmtp_tp.net.tls_stream import TlsStream, TlsStreamError
from proxsmtp_tp.tls.facts import Side
from tests.unit.net.tls_legs import client_leg

FINITE_FIELDS = range(0x0100, 0x0200)  # RFC 7919
P_256, X25519 = 0x0017, 0x001D


def groups_in(hello: bytes) -> list[int]:
    """The values of supported_groups (RFC 8446 section 4.2.7) in a ClientHello in one record."""
    at = 5 + 4 + 2 + 32
    at += 1 + hello[at]
    at += 2 + int.from_bytes(hello[at : at + 2])
    at += 1 + hello[at] + 2
    while at < len(hello):
        kind, length = (int.from_bytes(hello[at + place : at + place + 2]) for place in (0, 2))
        if kind == 10:
            listed = hello[at + 6 : at + 4 + length]
            return [int.from_bytes(listed[place : place + 2]) for place in range(0, len(listed), 2)]
        at += 4 + length
    raise AssertionError("no supported_groups")


def test_our_hello_offers_curves_only() -> None:
    offered = groups_in(TlsStream(server_context(), Side.SERVER, "mx.example").to_send())
    assert {P_256, X25519} <= set(offered)
    assert not set(offered) & set(FINITE_FIELDS)


@pytest.mark.parametrize("group", ["ffdhe8192", "ffdhe2048"])
def test_a_client_that_wants_a_finite_field_gets_an_alert(group: str) -> None:
    """It could keep the worker busy for a tenth of a second each time, without work of its own."""
    assert _answer_to("-groups", group)[0] == 21
    assert _answer_to("-groups", f"{group}:P-256")[0] == 22  # asked for another key share


def _answer_to(*options: str) -> bytes:
    """What our leg answers to the hello of `openssl s_client`."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        command = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-tls1_3", *options]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as run:
            sock, _ = listening.accept()
            with sock:
                stream = client_leg()
                with suppress(TlsStreamError):
                    stream.receive(sock.recv(65536))
            run.kill()
    return stream.to_send()


def test_the_library_is_that_of_the_module_ssl() -> None:
    assert tls_groups.limit_groups(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))


def test_a_library_out_of_reach_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls_groups, "_library", lambda: None)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if not hasattr(context, "set_groups"):
        assert not tls_groups.limit_groups(context)


class Shifted(ctypes.Structure):
    """Another field lies before the address."""

    _fields_ = (("other", ctypes.c_void_p), *tls_groups._Context._fields_)


class Exchanged(ctypes.Structure):
    """The address lies behind the fields for ALPN."""

    _fields_ = (*tls_groups._Context._fields_[1:], tls_groups._Context._fields_[0])


@pytest.mark.parametrize("layout", [Shifted, Exchanged])
def test_where_python_keeps_the_address_elsewhere_nothing_is_called(
    layout: type[ctypes.Structure], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong address would be written through."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if hasattr(context, "set_groups"):
        return
    tls_groups._layout_known.cache_clear()
    monkeypatch.setattr(tls_groups, "_Context", layout)
    monkeypatch.setattr(tls_groups, "_library", object)  # an AttributeError, if it is called
    try:
        assert not tls_groups.limit_groups(context)
    finally:
        tls_groups._layout_known.cache_clear()


def test_another_python_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    tls_groups._layout_known.cache_clear()
    monkeypatch.setattr(sys, "version_info", (3, 16, 0))
    try:
        assert not tls_groups._layout_known()
    finally:
        tls_groups._layout_known.cache_clear()
