"""One command line of a client: verb, argument, path, ESMTP parameters (RFC 5321 sections 2.4, 4.1.1, 4.1.2).

Guarantees: a `Command` came as one line with one CRLF at its end, without NUL, bare CR or bare LF, so that
no server sees two commands in it. `Command.line` is verbatim: what the server is sent. Addresses are read
as servers read them (spaces after the colon, missing angle brackets, 8-bit), because the server decides;
only what has no reading at all is refused.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from proxsmtp_tp.smtp import answers
from proxsmtp_tp.smtp.replies import SmtpError

if TYPE_CHECKING:
    from proxsmtp_tp.smtp.replies import Reply

_VERB = re.compile(rb"[A-Za-z][A-Za-z0-9_-]*")
_BARE = re.compile(rb"[\r\n\0]")

_ATOM = rb'"(?:[^"\\\0-\x1f\x7f]++|\\[^\0-\x1f\x7f])*+"|\\[^\0-\x1f\x7f]'
_PATH = re.compile(rb'<((?:[^<>"\\\0-\x1f\x7f]++|' + _ATOM + rb")*+)>(?:[ \t]+|\Z)")
_BARE_PATH = re.compile(rb'((?:[^<>"\\\0-\x20\x7f]++|' + _ATOM + rb")++)(?:[ \t]+|\Z)")
_DOMAIN = rb"(?:\[[^\]]*+\]|[^\[\]:,@]++)"
_ROUTE = re.compile(rb"@" + _DOMAIN + rb"(?:,[ \t]*@" + _DOMAIN + rb")*+:")
_MAIL = re.compile(rb"FROM[ \t]*:[ \t]*", re.IGNORECASE)
_RCPT = re.compile(rb"TO[ \t]*:[ \t]*", re.IGNORECASE)


class Verb(NamedTuple):
    """What the dialogue must know of a verb before the server has answered it."""

    pipelinable: bool
    """May be followed by other commands in a group (RFC 2920 section 3.1); any other verb ends the group."""


_GROUPED = b"RSET MAIL SEND SOML SAML RCPT"
_LAST = b"EHLO HELO DATA BDAT VRFY EXPN HELP NOOP QUIT TURN ATRN ETRN AUTH X-EXPS STARTTLS XCLIENT XFORWARD XEXCH50"
VERBS: Final[dict[bytes, Verb]] = {
    **dict.fromkeys(_GROUPED.split(), Verb(pipelinable=True)),
    **dict.fromkeys(_LAST.split(), Verb(pipelinable=False)),
}
"""The verbs that somebody speaks. A verb that is not here is passed on, and ends a group."""

AUTH_VERBS: Final = frozenset({b"AUTH", b"X-EXPS"})
"""What begins an exchange of lines with secrets (RFC 4954); X-EXPS is Exchange's among its own."""


class Command:
    """One command.

    `verb` is in upper case, `argument` what follows it without the white space around, `line` verbatim with its CRLF.
    """

    __slots__ = ("argument", "line", "verb")

    def __init__(self, verb: bytes, argument: bytes, line: bytes) -> None:
        self.verb = verb
        self.argument = argument
        self.line = line

    def __repr__(self) -> str:
        # The argument may be a password (AUTH): it has no place in a traceback.
        return f"Command({self.verb!r}, {len(self.argument)} octets)"


def parse_command(line: bytes) -> Command:
    """Read one line of a LineBuffer.

    SmtpError (500) for what is no command line, or for one that a server could read as two.
    """
    words = line.split(None, 1)
    if not line.endswith(b"\r\n") or _BARE.search(line, 0, len(line) - 2):
        raise SmtpError(_line_fault(line))
    if not words or _VERB.fullmatch(words[0]) is None:
        raise SmtpError(answers.COMMAND_UNRECOGNIZED)
    return Command(words[0].upper(), words[1].rstrip() if len(words) > 1 else b"", line)


def parse_mail(argument: bytes) -> tuple[bytes, bytes]:
    """Split the argument of MAIL: `FROM:<a@b> SIZE=1` is (b"a@b", b"SIZE=1"), `FROM:<>` is (b"", b"").

    The address is what stands between the angle brackets, source route removed; parameters are verbatim.
    SmtpError (501) for what has no reading.
    """
    start = _MAIL.match(argument)
    if start is None:
        raise SmtpError(answers.MAIL_SYNTAX)
    return _split_path(argument[start.end() :], answers.SENDER_SYNTAX)


def parse_rcpt(argument: bytes) -> tuple[bytes, bytes]:
    """Split the argument of RCPT, as `parse_mail` does; an empty address is refused."""
    start = _RCPT.match(argument)
    if start is None:
        raise SmtpError(answers.RCPT_SYNTAX)
    address, parameters = _split_path(argument[start.end() :], answers.RECIPIENT_SYNTAX)
    if not address:
        raise SmtpError(answers.RECIPIENT_SYNTAX)
    return address, parameters


def _split_path(text: bytes, fault: Reply) -> tuple[bytes, bytes]:
    found = _PATH.match(text) or _BARE_PATH.match(text)
    if found is None:
        raise SmtpError(fault)
    address = found[1].strip(b" \t")
    parameters = text[found.end() :]
    if parameters.startswith(b"<"):
        # `"Name" <a@b>`: a header's notation. To take the name for the address would misname the sender to filters.
        raise SmtpError(fault)
    if address.startswith(b"@"):
        route = _ROUTE.match(address)
        if route is None:
            raise SmtpError(fault)
        address = address[route.end() :].lstrip(b" \t")
        if not address:
            raise SmtpError(fault)
    return address, parameters.rstrip()


def _line_fault(line: bytes) -> Reply:
    """Name what is wrong with a line that is not clean up to one CRLF at its end."""
    if b"\0" in line:
        return answers.COMMAND_NUL
    if b"\n" in line.replace(b"\r\n", b""):
        return answers.COMMAND_BARE_LF
    return answers.COMMAND_BARE_CR
