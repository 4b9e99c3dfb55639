"""What milters are told: macros from the connection, the login, and the configuration."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from proxsmtp_tp.config.reader import read_config
from proxsmtp_tp.filters.limit import ProcessLimit
from proxsmtp_tp.filters.mail import Mail, Octets
from proxsmtp_tp.filters.milter_facts import message_for
from proxsmtp_tp.filters.parts import parts_of
from proxsmtp_tp.filters.protocols.milter_macros import macros_packet, recipient_values
from proxsmtp_tp.filters.protocols.milter_options import Stage
from proxsmtp_tp.filters.spool_space import SpoolSpace
from proxsmtp_tp.smtp.login import Login
from proxsmtp_tp.tls.facts import Legs, TlsFacts
from tests.unit.filters.member_harness import TEXT, request

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Any

    import pytest


def macros(tmp_path: Path, lines: str = "", **known: Any) -> Mapping[bytes, bytes]:
    path = tmp_path / "x.conf"
    path.write_text(f"OutAddress: 192.0.2.1\n{lines}")
    parts = parts_of(read_config(str(path)), SpoolSpace(str(tmp_path)), ProcessLimit(1))
    return message_for(Mail.of(Octets(TEXT)), request(**known), parts.hostname, parts.macros).macros


def test_macros_are_made_once_for_the_messages_of_a_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as the date is the same."""
    now = 1_000_000_000.0
    monkeypatch.setattr("time.time", lambda: now)
    mail = Mail.of(Octets(TEXT))
    first = message_for(mail, request(), "gw")
    for stage in Stage:
        macros_packet(stage, {}, first.macros, first.made, recipient_values(b"a@example.org"))
    second = message_for(mail, request(), "gw", (), (first.macros, first.made))
    assert second.macros is first.macros
    for stage in Stage:
        address = recipient_values(b"b@example.net")
        packet = macros_packet(stage, {}, second.macros, second.made, address)
        assert packet == macros_packet(stage, {}, second.macros, {}, address)
        assert (b"b@example.net" in packet) is (stage is Stage.RCPT)
    now += 1
    third = message_for(mail, request(), "gw", (), (first.macros, first.made))
    assert third.macros[b"b"] != first.macros[b"b"]
    assert not third.made


def test_the_name_of_the_gateway(tmp_path: Path) -> None:
    known = macros(tmp_path)
    assert (known[b"j"], known[b"{daemon_name}"]) == (socket.gethostname().encode(),) * 2
    known = macros(tmp_path, "Hostname: gw.example\n")
    assert (known[b"j"], known[b"{daemon_name}"]) == (b"gw.example",) * 2


def test_milter_macro(tmp_path: Path) -> None:
    """One more, and another value for one that is there; of two with the same name the last one counts."""
    lines = "MilterMacro: daemon_name a\nMilterMacro: daemon_name in %%bound\nMilterMacro: {site} %i,%l,%s\n"
    known = macros(tmp_path, lines, local="203.0.113.1")
    assert known[b"{daemon_name}"] == b"in %bound"
    assert known[b"{site}"] == b"192.0.2.7,203.0.113.1,198.51.100.9"
    assert known[b"j"] == socket.gethostname().encode()


def test_when_a_macro_of_our_own_is_sent() -> None:
    """With the connection; later stages have it by then. A filter that names its macros gets what it names."""
    known = {b"j": b"gw", b"i": b"t1", b"{site}": b"x"}
    assert macros_packet(Stage.CONNECT, {}, known).endswith(b"DCj\0gw\0{site}\0x\0")
    assert macros_packet(Stage.MAIL, {}, known).endswith(b"DMi\0t1\0")
    assert macros_packet(Stage.CONNECT, {Stage.CONNECT: (b"j",)}, known).endswith(b"DCj\0gw\0")
    assert macros_packet(Stage.END, {Stage.END: (b"{site}",)}, known).endswith(b"DE{site}\0x\0")


def test_a_login(tmp_path: Path) -> None:
    login = Login(b"PLAIN", b"ann")
    known = macros(tmp_path, authenticated=True, login=login)
    assert (known[b"{auth_type}"], known[b"{auth_authen}"]) == (b"PLAIN", b"ann")
    known = macros(tmp_path, authenticated=True, login=Login(b"CRAM-MD5"))
    assert known[b"{auth_type}"] == b"CRAM-MD5"
    assert b"{auth_authen}" not in known
    assert b"{auth_type}" not in macros(tmp_path, login=login)


def test_tls_of_the_client(tmp_path: Path) -> None:
    facts = TlsFacts("TLSv1.3", "TLS_AES_256_GCM_SHA384", "mx.example")
    known = macros(tmp_path, tls=Legs(client=facts))
    assert (known[b"{tls_version}"], known[b"{cipher}"]) == (b"TLSv1.3", b"TLS_AES_256_GCM_SHA384")
    assert b"{tls_version}" not in macros(tmp_path, tls=Legs(server=facts))
