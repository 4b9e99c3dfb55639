"""Command lines and paths."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxsmtp_tp.smtp import answers
from proxsmtp_tp.smtp.commands import VERBS, parse_command, parse_mail, parse_rcpt
from proxsmtp_tp.smtp.replies import Reply, SmtpError
from tests.unit.smtp.chunking import PROPERTY, of_pieces

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

PATHS = of_pieces(
    b"FROM",
    b"TO",
    b":",
    b"<",
    b">",
    b"@",
    b",",
    b"a",
    b"b.c",
    b'"',
    b"\\",
    b" ",
    b"\t",
    b"[",
    b"]",
    b"\0",
    b"\r",
    b"\xc3",
)


def value_or_code(parse: Callable[[bytes], T], data: bytes) -> T | int:
    """What is read, or the code of the refusal; nothing else may be raised."""
    try:
        return parse(data)
    except SmtpError as error:
        return error.reply.code


@pytest.mark.parametrize(
    ("line", "verb", "argument"),
    [
        (b"QUIT\r\n", b"QUIT", b""),
        (b"quit \r\n", b"QUIT", b""),
        (b" \tehlo \t host \t \r\n", b"EHLO", b"host"),
        (b"MAIL FROM:<a b> SIZE=1\r\n", b"MAIL", b"FROM:<a b> SIZE=1"),
        (b"X-foo_2 \xff\x01\r\n", b"X-FOO_2", b"\xff\x01"),
        (b"AUTH PLAIN dGVzdAB0ZXN0AHRlc3Q=\r\n", b"AUTH", b"PLAIN dGVzdAB0ZXN0AHRlc3Q="),
    ],
)
def test_commands(line: bytes, verb: bytes, argument: bytes) -> None:
    command = parse_command(line)
    assert (command.verb, command.argument, command.line) == (verb, argument, line)


@pytest.mark.parametrize(
    ("line", "reply"),
    [
        (b"NOOP\n", answers.COMMAND_BARE_LF),
        (b"NOOP", answers.COMMAND_BARE_CR),
        (b"NOOP\r", answers.COMMAND_BARE_CR),
        (b"NOOP\r\r\n", answers.COMMAND_BARE_CR),
        (b"NOOP a\rRSET\r\n", answers.COMMAND_BARE_CR),
        (b"\rNOOP\r\n", answers.COMMAND_BARE_CR),
        (b"NOOP a\nRSET\r\n", answers.COMMAND_BARE_LF),
        (b"NOOP a\r\nRSET\r\n", answers.COMMAND_BARE_CR),
        (b"NOOP\0\r\n", answers.COMMAND_NUL),
        (b"NO\0OP\n", answers.COMMAND_NUL),
        (b"\r\n", answers.COMMAND_UNRECOGNIZED),
        (b" \t \r\n", answers.COMMAND_UNRECOGNIZED),
        (b"<NOOP>\r\n", answers.COMMAND_UNRECOGNIZED),
        (b"354 go\r\n", answers.COMMAND_UNRECOGNIZED),
        (b".\r\n", answers.COMMAND_UNRECOGNIZED),
        (b"NO\x7fOP a\r\n", answers.COMMAND_UNRECOGNIZED),
        (b"\xc3\x89HLO a\r\n", answers.COMMAND_UNRECOGNIZED),
        (b"Subject: x\r\n", answers.COMMAND_UNRECOGNIZED),
    ],
)
def test_what_is_no_command(line: bytes, reply: Reply) -> None:
    with pytest.raises(SmtpError) as caught:
        parse_command(line)
    assert caught.value.reply is reply
    assert reply.code == 500
    assert reply.texts[0].startswith(b"5.5.2 ")


def test_a_password_is_not_in_the_representation() -> None:
    assert repr(parse_command(b"AUTH PLAIN c2VjcmV0\r\n")) == "Command(b'AUTH', 14 octets)"


@pytest.mark.parametrize(
    ("path", "address", "parameters"),
    [
        (b"<a@b>", b"a@b", b""),
        (b"<a@b> SIZE=1", b"a@b", b"SIZE=1"),
        (b"<a@b>\t SIZE=1  BODY=8BITMIME \t", b"a@b", b"SIZE=1  BODY=8BITMIME"),
        (b" \t<a@b>", b"a@b", b""),
        (b"< a@b >", b"a@b", b""),
        (b"a@b", b"a@b", b""),
        (b"a@b SIZE=1", b"a@b", b"SIZE=1"),
        (b"<postmaster>", b"postmaster", b""),
        (b"<a b@c>", b"a b@c", b""),
        (b'<"a > b"@c> X=<y>', b'"a > b"@c', b"X=<y>"),
        (b'<"a \\" > \\\\"@c>', b'"a \\" > \\\\"@c', b""),
        (b"<a\\>b@c>", b"a\\>b@c", b""),
        (b'"a b"@c SIZE=1', b'"a b"@c', b"SIZE=1"),
        (b"<a@[192.0.2.1]>", b"a@[192.0.2.1]", b""),
        (b"<a@[IPv6:2001:db8::1]>", b"a@[IPv6:2001:db8::1]", b""),
        (b"<@a,@b.c:u@d>", b"u@d", b""),
        (b"<@a, @b:u@d> NOTIFY=NEVER", b"u@d", b"NOTIFY=NEVER"),
        (b"<@[IPv6:2001:db8::1],@b:u@d>", b"u@d", b""),
        (b"@a:u@d SIZE=1", b"u@d", b"SIZE=1"),
        (b"<\xc3\xa9@\xc3\xa9.example> SMTPUTF8", b"\xc3\xa9@\xc3\xa9.example", b"SMTPUTF8"),
        (b"<a@b> ORCPT=rfc822;a+3E@b", b"a@b", b"ORCPT=rfc822;a+3E@b"),
    ],
)
def test_paths(path: bytes, address: bytes, parameters: bytes) -> None:
    assert parse_mail(b"FROM:" + path) == (address, parameters)
    assert parse_rcpt(b"TO:" + path) == (address, parameters)
    assert parse_mail(b"from : " + path) == (address, parameters)
    assert parse_rcpt(b"tO\t:" + path) == (address, parameters)


def test_the_null_sender() -> None:
    assert parse_mail(b"FROM:<>") == (b"", b"")
    assert parse_mail(b"FROM: <> SIZE=1") == (b"", b"SIZE=1")
    assert parse_mail(b"FROM:< >") == (b"", b"")


@pytest.mark.parametrize(
    "path",
    [
        b"",
        b"   ",
        b"<",
        b"<a@b",
        b"a@b>",
        b"<a@b>>",
        b"<<a@b>>",
        b"<a@b>SIZE=1",
        b"<a@b><c@d>",
        b"<a@b> <c@d>",
        b'"Name" <a@b>',
        b'<"a@b>',
        b'<"a\\"@b>',
        b"<a@b\\>",
        b"<@a>",
        b"<@a,b:u@c>",
        b"<@:u@c>",
        b"<@a:>",
        b"<a\x01@b>",
        b'<"a\x7f"@b>',
        b"<a\\\x02@b>",
        b"<a\rb@c>",
    ],
)
def test_paths_without_a_reading(path: bytes) -> None:
    with pytest.raises(SmtpError) as caught:
        parse_mail(b"FROM:" + path)
    assert caught.value.reply is answers.SENDER_SYNTAX
    with pytest.raises(SmtpError) as caught:
        parse_rcpt(b"TO:" + path)
    assert caught.value.reply is answers.RECIPIENT_SYNTAX


@pytest.mark.parametrize(
    "argument", [b"", b"<a@b>", b"FROM", b"FROM<a@b>", b"FROMM:<a@b>", b"XFROM:<a@b>", b"TO:<a@b>"]
)
def test_mail_without_from(argument: bytes) -> None:
    with pytest.raises(SmtpError) as caught:
        parse_mail(argument)
    assert caught.value.reply is answers.MAIL_SYNTAX


@pytest.mark.parametrize("argument", [b"", b"<a@b>", b"TO", b"FROM:<a@b>"])
def test_rcpt_without_to(argument: bytes) -> None:
    with pytest.raises(SmtpError) as caught:
        parse_rcpt(argument)
    assert caught.value.reply is answers.RCPT_SYNTAX


@pytest.mark.parametrize("argument", [b"TO:<>", b"TO:<> NOTIFY=NEVER", b"TO:< >", b"TO:<@a:>"])
def test_no_recipient_is_no_recipient(argument: bytes) -> None:
    with pytest.raises(SmtpError) as caught:
        parse_rcpt(argument)
    assert caught.value.reply is answers.RECIPIENT_SYNTAX


def test_verbs_that_may_be_followed_in_a_group_are_those_of_rfc_2920() -> None:
    grouped = {verb for verb, facts in VERBS.items() if facts.pipelinable}
    assert grouped == {b"RSET", b"MAIL", b"SEND", b"SOML", b"SAML", b"RCPT"}
    assert {b"EHLO", b"DATA", b"VRFY", b"EXPN", b"TURN", b"QUIT", b"NOOP"} <= VERBS.keys() - grouped


@given(st.binary() | of_pieces(b"MAIL", b" ", b"\t", b"\r\n", b"\r", b"\n", b"\0", b"FROM:<a@b>"))
@PROPERTY
def test_any_line_is_a_command_or_refused(line: bytes) -> None:
    command = value_or_code(parse_command, line)
    if isinstance(command, int):
        assert command == 500
        return
    assert command.line is line
    assert not set(line[:-2]) & set(b"\r\n\0")
    assert command.argument == command.argument.strip()
    assert command.verb == command.verb.upper()


@given(PATHS | st.binary())
@PROPERTY
def test_any_argument_has_an_address_or_is_refused(argument: bytes) -> None:
    for parse, text in ((parse_mail, b"FROM:" + argument), (parse_rcpt, b"TO:" + argument)):
        found = value_or_code(parse, text)
        if isinstance(found, int):
            assert found == 501
            continue
        address, parameters = found
        assert address in text
        assert text.rstrip().endswith(parameters)
        assert not set(address) & {*range(9), *range(10, 32), 127}
