"""Command lines and paths."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxsmtp_tp.smtp import answers
from proxsmtp_tp.smtp.commands import (
    VERBS,
    Command,
    EnvelopeCommand,
    guess_mail,
    guess_rcpt,
    parse_command,
    read_mail,
    read_rcpt,
)
from proxsmtp_tp.smtp.replies import Reply, SmtpError
from tests.unit.smtp.chunking import PROPERTY, of_pieces

if TYPE_CHECKING:
    from collections.abc import Callable

S = TypeVar("S")
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


def value_or_code(parse: Callable[[S], T], data: S) -> T | int:
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


def mail(text: bytes) -> EnvelopeCommand:
    """What `MAIL FROM` and this says, where somebody is told."""
    return read_mail(parse_command(b"MAIL FROM" + text + b"\r\n"))


def rcpt(text: bytes) -> EnvelopeCommand:
    """What `RCPT TO` and this says, where somebody is told."""
    return read_rcpt(parse_command(b"RCPT TO" + text + b"\r\n"))


def test_a_line_with_a_canonical_path_stays_as_it_is() -> None:
    for line in (b"mail from: <a@b>  SIZE=1 \r\n", b" MAIL  FROM:<>\r\n", b"SaMl FROM:<a@b>\tX=1\r\n"):
        assert read_mail(parse_command(line)).line == line


@pytest.mark.parametrize(
    ("line", "sent"),
    [
        (b"mail from: a@b\r\n", b"MAIL FROM:<a@b>\r\n"),
        (b'SOML FROM:<"a"@b>   SIZE=1 \t BODY=7BIT \r\n', b"SOML FROM:<a@b> SIZE=1 \t BODY=7BIT\r\n"),
        (b"MAIL FROM:<@c:a@b> X=1\r\n", b"MAIL FROM:<a@b> X=1\r\n"),
    ],
)
def test_the_server_and_the_filter_get_the_same_path(line: bytes, sent: bytes) -> None:
    assert read_mail(parse_command(line)).line == sent


@pytest.mark.parametrize(
    ("text", "reply"),
    [
        (b"", answers.MAIL_SYNTAX),
        (b"<a@b>", answers.MAIL_SYNTAX),
        (b" :<a@b>", answers.MAIL_SYNTAX),
        (b"M:<a@b>", answers.MAIL_SYNTAX),
        (b":<a b@c>", answers.SENDER_SYNTAX),
        (b":<a@b>\x0b", answers.SENDER_SYNTAX),
        (b":<a@b>\x01", answers.SENDER_SYNTAX),
        (b":<a@b>SIZE=1", answers.SENDER_SYNTAX),
        (b":<a@b> <c@d>", answers.PARAMETER_SYNTAX),
        (b":<> moe@x", answers.PARAMETER_SYNTAX),
    ],
)
def test_each_refusal_has_its_reply(text: bytes, reply: Reply) -> None:
    with pytest.raises(SmtpError) as caught:
        mail(text)
    assert caught.value.reply is reply
    of_rcpt = {answers.MAIL_SYNTAX: answers.RCPT_SYNTAX, answers.SENDER_SYNTAX: answers.RECIPIENT_SYNTAX}
    with pytest.raises(SmtpError) as caught:
        rcpt(text.replace(b"<>", b"<a@b>"))
    assert caught.value.reply is of_rcpt.get(reply, reply)


@pytest.mark.parametrize(
    ("text", "address", "parameters"),
    [
        (b":<a@b>", b"a@b", b""),
        (b" : <a b@c>\t SIZE=1  X=2 ", b"a b@c", b"SIZE=1  X=2"),
        (b": a@b SIZE=1", b"a@b", b"SIZE=1"),
        (b":<@a,@b.c:u@d>", b"u@d", b""),
        (b':<"a > b"@c> X=<y>', b'"a > b"@c', b"X=<y>"),
        (b":<>", b"", b""),
        (b":<a@b", b"FROM:<a@b", b"FROM:<a@b"),
        (b":<a@b>SIZE=1 REQUIRETLS", b"FROM:<a@b>SIZE=1 REQUIRETLS", b"FROM:<a@b>SIZE=1 REQUIRETLS"),
        (b"", b"FROM", b"FROM"),
        (b":\xff\x01", b"FROM:\xff\x01", b"FROM:\xff\x01"),
    ],
)
def test_where_addresses_are_not_used_any_address_passes_unchanged(
    text: bytes, address: bytes, parameters: bytes
) -> None:
    command = parse_command(b"MAIL FROM" + text + b"\r\n")
    assert guess_mail(command) == EnvelopeCommand(address, parameters, command.line)
    command = parse_command(b"RCPT TO" + text + b"\r\n")
    said = guess_rcpt(command)
    assert said.line == command.line
    assert said.address == address.replace(b"FROM", b"TO")


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
def test_any_argument_is_guessed_or_read_and_stays_one_line(argument: bytes) -> None:
    for verb, read, guess in (
        (b"MAIL FROM:", read_mail, guess_mail),
        (b"RCPT TO:", read_rcpt, guess_rcpt),
    ):
        command = value_or_code(parse_command, verb + argument + b"\r\n")
        if isinstance(command, int):
            continue
        guessed = guess(command)
        assert guessed.line is command.line
        assert guessed.address in command.argument
        said = value_or_code(read, command)
        if isinstance(said, int):
            assert said in {501, 555}
            continue
        assert said.line.count(b"\r") == said.line.count(b"\n") == 1
        assert said.line.endswith(b"\r\n")
        assert not set(said.address) & {*range(32), 127}
        assert read(parse_command(said.line)) == said


USUAL = of_pieces(
    b"<a", b"a", b".", b"@", b"b.c", b">", b" SIZE=1", b" X", b"\t", b"=", b"\x0b", b'"', b"\x80", max_size=8
)


def readings(read: Callable[[Command], EnvelopeCommand], *starts: bytes, argument: bytes) -> list[object]:
    """What is read of the argument behind each start, without the line; or the code of the refusal."""
    found: list[object] = []
    for start in starts:
        said = value_or_code(lambda line: read(parse_command(line)), start + argument + b"\r\n")
        found.append(said if isinstance(said, int) else (said.address, said.parameters, said.line.upper()))
    return found


@given(USUAL | USUAL.map(lambda text: b"<a.b@b.c>" + text))
@PROPERTY
def test_the_usual_form_is_read_as_any_other(argument: bytes) -> None:
    """The keyword in lower case is another form."""
    usual, other = readings(read_mail, b"MAIL FROM:", b"MAIL from:", argument=argument)
    assert usual == other
    usual, other = readings(read_rcpt, b"RCPT TO:", b"RCPT to:", argument=argument)
    assert usual == other


@pytest.mark.parametrize("between", [b"\x0b", b"\t", b"  ", b" \x0c"])
def test_what_is_between_verb_and_argument_is_read_too(between: bytes) -> None:
    line = b"MAIL" + between + b"FROM:<a@b>\r\n"
    read = value_or_code(lambda line: read_mail(parse_command(line)), line)
    assert read == (501 if set(between) & set(b"\x0b\x0c") else EnvelopeCommand(b"a@b", b"", line))
