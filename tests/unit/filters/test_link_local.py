"""A client with a link-local address: the servers that judge get the address without the interface."""

from __future__ import annotations

from dataclasses import replace

from proxsmtp_tp.filters.mail import Mail, Octets
from proxsmtp_tp.filters.milter_facts import message_for
from proxsmtp_tp.filters.protocols.milter import MilterDialogue
from proxsmtp_tp.filters.spamd import own_fields
from tests.unit.filters.filter_harness import TEXT, request
from tests.unit.filters.protocols.milter_peer import options

LOCAL = replace(request(), client="fe80::1%eth0", server="fe80::2%eth0")


def test_milter() -> None:
    message = message_for(Mail.of(Octets(TEXT)), LOCAL, "gw.example")
    assert message.macros[b"{client_addr}"] == b"fe80::1"
    assert message.macros[b"{daemon_addr}"] == b"fe80::2"
    dialogue = MilterDialogue(message)
    dialogue.output()
    dialogue.feed(options())
    sent = dialogue.output()
    assert b"IPv6:fe80::1\0" in sent
    assert b"%eth0" not in sent


def test_spamd() -> None:
    assert b"(unknown [fe80::1])" in own_fields(LOCAL, b"gw.example")
