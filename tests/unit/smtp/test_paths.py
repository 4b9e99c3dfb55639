"""Paths: one reading or none."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxsmtp_tp.smtp.paths import ParameterError, Path, PathError, read_forward_path, read_reverse_path
from tests.mta.forms import FORMS, USUAL
from tests.unit.smtp.chunking import PROPERTY, of_pieces

if TYPE_CHECKING:
    from collections.abc import Callable

PIECES = of_pieces(
    *(b"<", b">", b"@", b":", b",", b".", b"a", b"b.c", b'"', b"\\", b" ", b"\t", b"[", b"]", b"192.0.2.1", b"IPv6:::"),
    *(b"(", b")", b";", b"\x01", b"\xc3", b"\xc3\xa9", b"\xe3\x80\x82", b"X=1", b"<a@b>", b'"a b"', b"postmaster"),
)


def reading(read: Callable[[bytes], Path], text: bytes) -> Path | None:
    """The path, or None for a refusal; nothing else may be raised."""
    try:
        return read(text)
    except (PathError, ParameterError):
        return None


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        # Needless quotes and backslashes are undone.
        (b'<"blocked"@x.example>', b"blocked@x.example"),
        (b"<block\\ed@x.example>", b"blocked@x.example"),
        (b'<"block\\ed"@x.example>', b"blocked@x.example"),
        (b'<"a".b."c"@x>', b"a.b.c@x"),
        (b'<"a b".c@x>', b'"a b.c"@x'),
        (b"<a\\@b@x>", b'"a@b"@x'),
        (b'<"a\\"b\\\\c"@x>', b'"a\\"b\\\\c"@x'),
        ('<"jos\u00e9"@x>'.encode(), "jos\u00e9@x".encode()),
        # Dots that no Dot-string has: one notation for both.
        (b"<a..b@x>", b'"a..b"@x'),
        (b'<"a..b"@x>', b'"a..b"@x'),
        (b"<.a@x>", b'".a"@x'),
        (b"<a.@x>", b'"a."@x'),
        (b'<""@x>', b'""@x'),
        # Source routes are ignored.
        (b"<@a:u@x>", b"u@x"),
        (b"<@a.b,@[192.0.2.1],@[IPv6:2001:db8::1]:u@x>", b"u@x"),
        # Without angle brackets.
        (b"a@x", b"a@x"),
        (b'"a b"@x', b'"a b"@x'),
        (b" \t<a@x>", b"a@x"),
        # Domains.
        (b"<blocked@x.example.>", b"blocked@x.example"),
        (b"<a@X.Example>", b"a@X.Example"),
        (b"<a@x_y.example>", b"a@x_y.example"),
        (b"<a@[192.0.2.1]>", b"a@[192.0.2.1]"),
        (b"<a@[iPv6:2001:DB8::1]>", b"a@[iPv6:2001:DB8::1]"),
        ("<a@b\u00fccher.example>".encode(), "a@b\u00fccher.example".encode()),
        ("<a@\u0646\u0627\u0645\u0647\u200c\u0627\u06cc.example>".encode(),) * 2,
        ("<a@\u0915\u094d\u200d\u0937.example>".encode(),) * 2,
    ],
)
def test_one_notation(written: bytes, canonical: bytes) -> None:
    canonical = canonical.strip(b"<>")
    for read in (read_reverse_path, read_forward_path):
        exact = written.strip() == b"<" + canonical + b">"
        assert read(written) == (canonical, b"", exact)
        assert read(written + b" SIZE=1  X=<y> ") == (canonical, b"SIZE=1  X=<y>", exact)


@pytest.mark.parametrize(
    "text",
    [
        # The issue's.
        *(b"Joe Doe <blocked@x.example>", b"postmaster x <victim@x.example>", b"<(c)blocked@x.example>"),
        *(b"<blocked @x.example>", b"<g:blocked@x.example;>"),
        # No address, or no end of it.
        *(b"", b" ", b"<", b"<a@b", b"a@b>", b"<a@b>>", b"<<a@b>>", b"< >", b"<\t>", b"<@>", b"<@b>", b"<a@>", b"a"),
        # No domain: the server would append one of its own.
        *(b"<joe>", b"<joe%y>", b"<y!joe>", b"<MAILER-DAEMON>"),
        *(b'"a@b"', b'<"a@b">', b"postmaster", b"<@a:postmaster>"),
        # Comments, blanks, lists, groups.
        *(b"<a(c)@b>", b"<a@(c)b>", b"<a@b(c)>", b"(c)<a@b>"),
        *(b"<a@b>(c)", b"<a.(c)b@d>", b"< a@b>", b"<a@b >", b"<a@ b>"),
        *(b"<a b@c>", b"<a\tb@c>", b"<a@b,c@d>", b"a@b,c@d"),
        *(b"<a@b>,<c@d>", b"<a@b><c@d>", b"<mailto:a@b>", b"<a;@b>"),
        # Quotes.
        *(b'<"a@b>', b'<a"@b>', b'<"a"b@c>', b'<a"b"@c>'),
        *(b'<"a""b"@c>', b'<"a\\"@b>', b"<a@b\\>", b'<a@"b">', b"<a@b\\.c>"),
        *(b'<"a\\" b"@c>', b'<"\\"a b\\""@c>', b'<a\\"\\ b@c>'),  # Exim passes on another recipient
        # More than one domain, and what may be none.
        *(b"<a@b@c>", b"<a@@b>", b"<@a@b>", b"<a@.b>", b"<a@b..c>"),
        *(b"<a@b..>", b"<a@.>", b"<a@b!c>", b"<a@b%c>", b"<a@b:25>"),
        *(b"<a@b+c>", b"<a@b/c>", b"<a@#1>", b"<a@b*>"),
        # Address literals.
        *(b"<a@[192.0.2.01]>", b"<a@[192.0.2]>", b"<a@[192.0.2.256]>"),
        *(b"<a@[0xc0000201]>", b"<a@[2001:db8::1]>", b"<a@[]>"),
        *(b"<a@[IPv6:192.0.2.1]>", b"<a@[IPv6:::1%lo]>", b"<a@[IPv6:]>"),
        *(b"<a@[x:y]>", b"<a@[192.0.2.1].>", b"<a@[192.0.2.1]x>"),
        *(b"<a@[192.0.2.1>", b"<a@x[192.0.2.1]>", b"<a@[ 192.0.2.1]>"),
        # Source routes.
        *(b"<@a>", b"<@a,b:u@c>", b"<@:u@c>", b"<@a:>"),
        *(b"<@a,:u@c>", b"<@a,,@b:u@c>", b"<@a, @b:u@c>", b"<@a:@b:u@c>"),
        # Octets.
        *(b"<a\x01@b>", b'<"a\x01"@b>', b'<"a\tb"@c>', b"<a\x7f@b>"),
        *(b"<a\\\x01@b>", b"<a@b\x01>", b"\x0b<a@b>", b"<a\r@b>"),
        *(b"<\xe9@b>", b"<a@\xe9>", b"<\xc0\xaf@b>", b"<\xed\xa0\x80@b>", b"\xc2\xa0<a@b>", b'<"\xc3"@b>'),
        # Domains that look like another one.
        *(f"<a@{domain}>".encode() for domain in ("\uff58.example", "x\u3002example")),
        *(f"<a@{domain}>".encode() for domain in ("x\uff0eexample", "x\uff61example")),
        *(f"<a@{domain}>".encode() for domain in ("x\u00ad.example", "x\u200b.example")),
        *(f"<a@{domain}>".encode() for domain in ("x\u200d.example", "\u200dx")),
        *(f"<a@{domain}>".encode() for domain in ("x\u2028.example", "x\u0085", "bu\u0308cher")),
        *(f"<a@{domain}>".encode() for domain in ("x\u00a0y", "\u2116", "\U0001f600")),
        # What sticks to the path.
        *(b"<a@b>SIZE=1", b"<a@b>;", b"<a@b>.", b"<a@b>\x0b"),
    ],
)  # fmt: skip
def test_no_reading(text: bytes) -> None:
    with pytest.raises(PathError):
        read_reverse_path(text)
    with pytest.raises(PathError):
        read_forward_path(text)


@pytest.mark.parametrize(
    "parameters",
    [
        *(
            b"<c@d>",
            b"c@d",
            b"=1",
            b"X= 1",
            b"X =1",
            b"X=",
            b"-X=1",
            b"X_Y=1",
            b"X==",
            b"X=1 <c@d>",
            b"(c)",
            b";",
            b"X=\x01",
        ),
        *(b"X=\xff", b"X=\xc3", b"X=1\x0bY=2", b"<>"),
    ],
)
def test_no_parameters(parameters: bytes) -> None:
    for read in (read_reverse_path, read_forward_path):
        with pytest.raises(ParameterError):
            read(b"<a@b> " + parameters)


@pytest.mark.parametrize(
    "parameters",
    [
        *(
            b"SIZE=1000",
            b"size=1000 BODY=8BITMIME",
            b"SMTPUTF8",
            b"AUTH=<>",
            b"AUTH=a+2Bb@x",
            b"RET=HDRS ENVID=QQ314159",
        ),
        *(
            b"NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;a+40b@x",
            b"ORCPT=utf-8;\xc3\xa9@x",
            b"HOLDFOR=1 BY=10;R MT-PRIORITY=-1",
        ),
        *(b"X", b"X=\\", b'X="'),
    ],
)
def test_parameters(parameters: bytes) -> None:
    for read in (read_reverse_path, read_forward_path):
        assert read(b"<a@b> " + parameters) == (b"a@b", parameters, True)
        assert read(b"a@b\t " + parameters + b" \t") == (b"a@b", parameters, False)


def test_the_null_path_is_a_sender_only() -> None:
    assert read_reverse_path(b"<>") == (b"", b"", True)
    assert read_reverse_path(b" <> SIZE=1") == (b"", b"SIZE=1", True)
    with pytest.raises(PathError):
        read_forward_path(b"<>")


def test_postmaster_without_a_domain_is_a_recipient_only() -> None:
    for name in (b"Postmaster", b"postmaster", b"POSTMASTER"):
        assert read_forward_path(b"<" + name + b"> NOTIFY=NEVER") == (name, b"NOTIFY=NEVER", True)
        with pytest.raises(PathError):
            read_reverse_path(b"<" + name + b">")
    assert read_forward_path(b'<"post\\master">') == (b"postmaster", b"", False)


@pytest.mark.parametrize("form", USUAL)
def test_usual_forms_are_read(form: bytes) -> None:
    text = form.removeprefix(b":")
    assert read_forward_path(text).address
    assert read_reverse_path(text) == read_forward_path(text)


@pytest.mark.parametrize("form", USUAL)
def test_a_usual_path_in_angle_brackets_is_unchanged(form: bytes) -> None:
    text = form.removeprefix(b":").strip()
    if text.startswith(b"<") and not text.startswith(b"<@"):
        path = read_forward_path(text)
        assert path.exact
        assert text.startswith(b"<" + path.address + b">")


@given(PIECES | st.binary() | st.sampled_from(FORMS).map(lambda form: form.removeprefix(b":")))
@PROPERTY
def test_what_is_read_reads_as_itself(text: bytes) -> None:
    for read in (read_reverse_path, read_forward_path):
        path = reading(read, text)
        if path is None:
            continue
        written = b"<" + path.address + b">"
        assert read(written) == (path.address, b"", True)
        assert path.exact == text.lstrip(b" \t").startswith(written)
        assert text.strip(b" \t").endswith(path.parameters)
        assert not {*range(32), 127} & set(path.address)
        path.address.decode("utf-8")


@given(
    st.text(st.characters(min_codepoint=32, exclude_categories=["Cc", "Cs"])).filter(
        lambda text: not {" ", '"'} <= set(text)
    ),
    st.booleans(),
)
@PROPERTY
def test_any_local_part_can_be_written_in_quotes(text: str, every: bool) -> None:
    spared = "" if every else " .@()<>"
    quoted = "".join(c if c in spared or not (every or c in '"\\') else "\\" + c for c in text)
    path = read_forward_path(b'<"' + quoted.encode() + b'"@x>')
    local_part = path.address.removesuffix(b"@x")
    if local_part.startswith(b'"'):
        local_part = re.sub(rb"\\(.)", rb"\1", local_part[1:-1])
    assert local_part == text.encode()
