"""The answer to EHLO: what stays, what goes, the name in it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxsmtp_tp.smtp.capabilities import (
    EXTENSIONS,
    PASSTHRU_NAME,
    REMOVED,
    Capabilities,
    hide_greeting,
    refused_parameter,
    rewrite_ehlo,
)
from proxsmtp_tp.smtp.replies import Reply
from tests.unit.smtp.chunking import PROPERTY

KEPT = (
    "PIPELINING",
    "SIZE 10240000",
    "8BITMIME",
    "DSN",
    "ENHANCEDSTATUSCODES",
    "SMTPUTF8",
    "AUTH PLAIN LOGIN",
    "AUTH=LOGIN",
    "X-EXPS GSSAPI NTLM",
    "ETRN",
    "VRFY",
    "HELP",
    "LIMITS RCPTMAX=100",
    "REQUIRETLS",
    "XFORWARD NAME ADDR",
    "x-unknown With Parameters",
    *[
        "SEND",
        "SOML",
        "SAML",
        "EXPN",
        "ONEX",
        "DELIVERBY",
        "NO-SOLICITING",
        "MTRK",
        "SUBMITTER",
        "CONPERM",
        "CONNEG",
        "MT-PRIORITY",
        "RRVS",
    ],
    "FUTURERELEASE 86400 2026-12-01T00:00:00Z",
    *["XVERP=Courier", "XSHADOW", "XOORG", "XRDST", "XUSR", "XADR", "XSTA", "XCIR", "XGEN"],
)


def shown(*texts: str, hide_name: bytes | None = None) -> tuple[bytes, ...]:
    return rewrite_ehlo(Reply.of(250, *texts), hide_name=hide_name)[0].texts


def test_what_stays_stays_as_it_is() -> None:
    reply = Reply.of(250, "mx.example.net Hello", *KEPT)
    assert rewrite_ehlo(reply, hide_name=None)[0] is reply


GONE = [
    "PIPECONNECT",
    "PIPE_CONNECT",
    "X_PIPE_CONNECT",
    "STARTTLS",
    "X-ANONYMOUSTLS",
    "CHUNKING",
    "BINARYMIME",
    "BURL",
    "CHECKPOINT",
    "PRDR",
    "XCLIENT",
    "XEXCH50",
    "TURN",
    "ATRN",
    "VERB",
    "UTF8SMTP",
    "XEXDATA",
    "XSECURITY",
    "XREMOTEIP",
    "XPROXY",
    "XPROXYFROM",
    "XPROXYTO",
    "X-LINK2STATE",
    "XMESSAGECONTEXT",
]


@pytest.mark.parametrize("keyword", GONE)
def test_a_removed_keyword_is_removed_at_any_place(keyword: str) -> None:
    for form in (keyword, keyword.lower(), f"{keyword} NAME ADDR", f"  {keyword}\t", f"{keyword} ", f"{keyword}=X,Y"):
        assert shown("mx", form, "SIZE") == (b"mx", b"SIZE")
        assert shown("mx", "SIZE", form) == (b"mx", b"SIZE", b"XFILTERED")
        assert shown("mx", form, form) == (b"mx", b"XFILTERED")
    assert keyword.encode() in REMOVED


def test_what_is_named_in_the_table_is_shown_to_stay_or_to_go() -> None:
    staying = {text.partition(" ")[0].partition("=")[0].encode() for text in KEPT}
    hint = "add the keyword to KEPT or GONE in this file"
    assert {keyword for keyword, row in EXTENSIONS.items() if row.stays} <= staying, hint
    assert {keyword for keyword, row in EXTENSIONS.items() if not row.stays} == {
        keyword.encode() for keyword in GONE
    }, hint
    assert all(row.why for row in EXTENSIONS.values())
    bare = {keyword for keyword, row in EXTENSIONS.items() if not (row.stays or row.verbs or row.parameters)}
    assert all(b"CONNECT" in keyword for keyword in bare), "what goes has commands or parameters"


@pytest.mark.parametrize(
    ("parameters", "refused"),
    [
        (b"", None),
        (b"SIZE=1 BODY=8BITMIME RET=HDRS ENVID=PRDR AUTH=<> SMTPUTF8 HOLDFOR=60", None),
        (b"SIZE=1 body=binarymime", b"BODY=BINARYMIME"),
        (b"prdr", b"PRDR"),
        (b"TransID=<12@x> SIZE=1", b"TRANSID"),
        (b"NOTIFY=NEVER alt-address=a@b.example", b"ALT-ADDRESS"),
        (b"EXDATA", b"EXDATA"),
        (b"VERP SECURITY=STARTTLS", b"SECURITY"),
        (b"XMESSAGECONTEXT=ADRC-2.1.0.0", b"XMESSAGECONTEXT"),
    ],
)
def test_parameters_of_removed_keywords(parameters: bytes, refused: bytes | None) -> None:
    assert refused_parameter(parameters) == refused


def test_only_whole_keywords_go() -> None:
    assert shown("mx", "XCLIENTS", "X-STARTTLS", "START TLS") == (b"mx", b"XCLIENTS", b"X-STARTTLS", b"START TLS")


def test_the_first_line_is_a_name_and_no_keyword() -> None:
    reply, capabilities = rewrite_ehlo(Reply.of(250, "STARTTLS"), hide_name=None)
    assert reply.texts == (b"STARTTLS",)
    assert capabilities.keywords == {}


def test_the_name_is_hidden_with_the_text_after_it() -> None:
    assert shown("mx.example.net Hello", "SIZE", hide_name=PASSTHRU_NAME) == (b"smtp.passthru", b"SIZE")
    assert shown("mx.example.net", hide_name=PASSTHRU_NAME) == (b"smtp.passthru",)


def test_a_refusal_has_no_capabilities() -> None:
    reply = Reply.of(550, "mx", "PIPELINING", "STARTTLS")
    rewritten, capabilities = rewrite_ehlo(reply, hide_name=PASSTHRU_NAME)
    assert rewritten is reply
    assert not capabilities.pipelining
    assert capabilities.keywords == {}


def test_what_the_server_offered_is_known_as_it_said_it() -> None:
    reply = Reply.of(
        250, "mx", "pipelining", "Size  100", "XCLIENT NAME addr", "xclient HELO ", "XFORWARD Port", "AUTH=A"
    )
    _reply, capabilities = rewrite_ehlo(reply, hide_name=None)
    assert capabilities.pipelining
    assert capabilities.keywords[b"SIZE"] == b"100"
    assert capabilities.keywords[b"PIPELINING"] == b""
    assert capabilities.keywords[b"AUTH"] == b"A"
    assert capabilities.xclient == {b"NAME", b"ADDR", b"HELO"}
    assert capabilities.xforward == {b"PORT"}


def test_a_server_that_offers_nothing() -> None:
    capabilities = Capabilities()
    assert not capabilities.pipelining
    assert capabilities.xclient == capabilities.xforward == frozenset()


def test_greetings() -> None:
    assert hide_greeting(Reply.of(220, "mx.example.net ESMTP Postfix"), PASSTHRU_NAME).wire == b"220 smtp.passthru\r\n"
    several = Reply.of(220, "mx.example.net ESMTP", "No spam.", "Go ahead")
    assert hide_greeting(several, PASSTHRU_NAME).texts == (b"smtp.passthru", b"No spam.", b"Go ahead")
    again = Reply.of(
        220,
        "mx.example.net ESMTP",
        "MX.Example.net ESMTP",
        "not-mx.example.net nor mx.example.net.uk but mx.example.net.",
        "",
    )
    assert hide_greeting(again, PASSTHRU_NAME).texts[1:] == (
        b"smtp.passthru ESMTP",
        b"not-mx.example.net nor mx.example.net.uk but smtp.passthru.",
        b"",
    )
    words = Reply.of(220, "Welcome here", "Welcome there")
    assert hide_greeting(words, PASSTHRU_NAME).texts == (b"smtp.passthru", b"Welcome there")
    refusal = Reply.of(554, "mx.example.net no")
    assert hide_greeting(refusal, PASSTHRU_NAME) is refusal


@given(st.lists(st.binary(), min_size=1), st.sampled_from([None, PASSTHRU_NAME]))
@PROPERTY
def test_any_answer_stays_an_answer(texts: list[bytes], name: bytes | None) -> None:
    reply, _capabilities = rewrite_ehlo(Reply.of(250, *texts), hide_name=name)
    for text in reply.texts[1:]:
        assert not text.split() or text.split()[0].upper() not in REMOVED
    assert hide_greeting(reply, PASSTHRU_NAME).texts[0] == PASSTHRU_NAME
