"""One command line of a client: verb, argument, path, ESMTP parameters (RFC 5321 sections 2.4, 4.1.1, 4.1.2).

Guarantees: a `Command` came as one line with one CRLF at its end, without NUL, bare CR or bare LF, so that
no server sees two commands in it. `Command.line` is verbatim. MAIL and RCPT are read in two ways: `read_mail`
and `read_rcpt` if the proxy uses the address (it has one reading or is refused, see `paths`), `guess_mail` and
`guess_rcpt` if it does not (then the server decides).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from proxsmtp_tp.smtp import answers, paths
from proxsmtp_tp.smtp.buffers import BLANK, CR, LF, NUL
from proxsmtp_tp.smtp.replies import SmtpError

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxsmtp_tp.smtp.replies import Reply

_VERB: Final = re.compile(rb"[A-Za-z][A-Za-z0-9_-]*")

_ATOM: Final = rb'"(?:[^"\\\0-\x1f\x7f]++|\\[^\0-\x1f\x7f])*+"|\\[^\0-\x1f\x7f]'
_PATH: Final = re.compile(rb'<((?:[^<>"\\\0-\x1f\x7f]++|' + _ATOM + rb")*+)>(?:[ \t]+|\Z)")
_BARE_PATH: Final = re.compile(rb'((?:[^<>"\\\0-\x20\x7f]++|' + _ATOM + rb")++)(?:[ \t]+|\Z)")
_DOMAIN: Final = rb"(?:\[[^\]]*+\]|[^\[\]:,@]++)"
_ROUTE: Final = re.compile(rb"@" + _DOMAIN + rb"(?:,[ \t]*@" + _DOMAIN + rb")*+:")
_LOOSE_MAIL: Final = re.compile(rb"FROM[ \t]*:[ \t]*", re.IGNORECASE)
_LOOSE_RCPT: Final = re.compile(rb"TO[ \t]*:[ \t]*", re.IGNORECASE)
_MAIL: Final = re.compile(rb"FROM:", re.IGNORECASE)
_RCPT: Final = re.compile(rb"TO:", re.IGNORECASE)
_CONTROL: Final = re.compile(rb"[\0-\x08\x0a-\x1f\x7f]")
_PLAIN: Final = bytes(63 if octet <= 32 or octet == 127 or octet in b'<>"\\' else octet for octet in range(256))
"""Changes the octets of a path that may need a closer look: blanks, controls, brackets, quotes and backslashes."""


class Verb(NamedTuple):
    """What the dialogue must know about a verb before the server has answered it."""

    pipelinable: bool
    """Whether other commands may follow in a group (RFC 2920 section 3.1). If not, this verb ends the group."""


_GROUPED: Final = b"RSET MAIL SEND SOML SAML RCPT"
_LAST: Final = (
    b"EHLO HELO DATA BDAT VRFY EXPN HELP NOOP QUIT TURN ATRN ETRN AUTH X-EXPS STARTTLS XCLIENT XFORWARD XEXCH50"
)
VERBS: Final[dict[bytes, Verb]] = {
    **dict.fromkeys(_GROUPED.split(), Verb(pipelinable=True)),
    **dict.fromkeys(_LAST.split(), Verb(pipelinable=False)),
}
"""The known verbs. An unknown verb is passed on, and ends a group."""

AUTH_VERBS: Final = frozenset({b"AUTH", b"X-EXPS"})
"""Verbs that begin an exchange with secrets (RFC 4954); Exchange servers use X-EXPS between them."""

SECRET_VERBS: Final = AUTH_VERBS | {b"BURL", b"PASS", b"LOGIN", b"AUTHENTICATE"}
"""Verbs whose arguments no log line may have. BURL names a message with the right to read it (RFC 4468, RFC 4467); the
others are logins of POP and IMAP, which a client may send by mistake."""

_LONG_AUTH: Final = re.compile(rb"[A-Za-z-]+ [A-Za-z0-9_-]+ [A-Za-z0-9+/]*+={0,2}\r\n")
_LONG_AUTH_REPLY: Final = re.compile(rb"[A-Za-z0-9+/]*+={0,2}\r\n")


def is_safe_when_cut(line: bytes, *, continues: bool) -> bool:
    """Whether a line of an AUTH exchange has only base64 after its start. `continues`: it is not the first line.

    A server may read a line that is longer than its limit as two lines (Sendmail at 12287 octets, others at 2048). The
    second one must then be no command with an argument.
    """
    return (_LONG_AUTH_REPLY if continues else _LONG_AUTH).fullmatch(line) is not None


class Command:
    """One command.

    `verb` is in upper case. `argument` is what follows, without surrounding white space. `line` is verbatim, with CRLF.
    """

    __slots__ = ("argument", "line", "verb")

    def __init__(self, verb: bytes, argument: bytes, line: bytes) -> None:
        self.verb = verb
        self.argument = argument
        self.line = line

    def __repr__(self) -> str:
        # The argument may be a password (AUTH), which must not appear in a traceback.
        return f"Command({self.verb!r}, {len(self.argument)} octets)"


def parse_command(line: bytes) -> Command:
    """Read one line from a LineBuffer.

    SmtpError (500) for an invalid command line, or for one that a server could read as two.
    """
    text = line[:-2]
    if not line.endswith(b"\r\n") or CR in text or LF in text or NUL in text:
        raise SmtpError(_line_fault(line))
    start = text[:5]
    if start == b"MAIL ":  # the commands of every message; comparisons are faster than a look-up
        return Command(b"MAIL", _stripped(text[5:]), line)
    if start == b"RCPT ":
        return Command(b"RCPT", _stripped(text[5:]), line)
    if text == b"DATA":
        return Command(b"DATA", b"", line)
    word, _, argument = text.partition(b" ")
    verb = word.upper()
    if verb in VERBS:
        return Command(verb, argument.strip(), line)
    words = line.split(None, 1)
    if not words or _VERB.fullmatch(words[0]) is None:
        raise SmtpError(answers.COMMAND_UNRECOGNIZED)
    return Command(words[0].upper(), words[1].rstrip() if len(words) > 1 else b"", line)


def _stripped(argument: bytes) -> bytes:
    """Without white space at its ends, which usually is not there."""
    if argument and argument[0] > BLANK and argument[-1] > BLANK:
        return argument
    return argument.strip()


@dataclass(slots=True, init=False)
class EnvelopeCommand:
    """What MAIL or RCPT says: the address without angle brackets, the parameters, and the line for the server."""

    address: bytes
    parameters: bytes
    line: bytes

    def __init__(self, address: bytes, parameters: bytes, line: bytes) -> None:
        self.address = address
        self.parameters = parameters
        self.line = line


def read_mail(command: Command) -> EnvelopeCommand:
    """Read MAIL: the address in the form of `paths.Path`, b"" for `<>`.

    `line` is the client's own line if its path has that form; otherwise the path is rewritten, so that the server uses
    the same address as filter and log. SmtpError (501, 555) if servers could read the address in more than one way.
    """
    return _plain(command, b"FROM:<") or _read(
        command, _MAIL, paths.read_reverse_path, answers.MAIL_SYNTAX, answers.SENDER_SYNTAX
    )


def read_rcpt(command: Command) -> EnvelopeCommand:
    """Read RCPT like `read_mail`; an empty address is refused."""
    return _plain(command, b"TO:<") or _read(
        command, _RCPT, paths.read_forward_path, answers.RCPT_SYNTAX, answers.RECIPIENT_SYNTAX
    )


def guess_mail(command: Command) -> EnvelopeCommand:
    """Read MAIL if the proxy does not use the address: every line is accepted and passed on unchanged.

    If the line cannot be parsed, address and parameters are both the whole argument, so that every word is checked.
    """
    return _simple(command, b"FROM:<") or _guess(command, _LOOSE_MAIL)


def guess_rcpt(command: Command) -> EnvelopeCommand:
    """Read RCPT like `guess_mail`."""
    return _simple(command, b"TO:<") or _guess(command, _LOOSE_RCPT)


def _read(
    command: Command, keyword: re.Pattern[bytes], read: Callable[[bytes], paths.Path], syntax: Reply, fault: Reply
) -> EnvelopeCommand:
    start = keyword.match(command.argument)
    if start is None:
        raise SmtpError(syntax)
    if _CONTROL.search(command.line, 0, len(command.line) - 2):
        raise SmtpError(fault)
    try:
        path = read(command.argument[start.end() :])
    except paths.PathError as error:
        raise SmtpError(fault) from error
    except paths.ParameterError as parameter_error:
        raise SmtpError(answers.PARAMETER_SYNTAX) from parameter_error
    if path.exact:
        return EnvelopeCommand(path.address, path.parameters, command.line)
    words = b"%s %s<%s> %s" % (command.verb, start[0].upper(), path.address, path.parameters)
    return EnvelopeCommand(path.address, path.parameters, words.rstrip(b" ") + b"\r\n")


def _plain(command: Command, start: bytes) -> EnvelopeCommand | None:
    """The usual form, read as `_read` does: `MAIL FROM:<address>` with or without parameters, where the address needs
    no closer look; None: another form, or an error. `start` is what is before the address, in upper case.
    """
    argument, line = command.argument, command.line
    if not argument.startswith(start) or len(line) != len(argument) + len(b"MAIL \r\n") or line[4] != BLANK:
        return None
    path = paths.PLAIN.match(argument, len(start) - 1)
    if path is None:
        return None
    end = path.end()
    parameters = b""
    if end < len(argument):
        try:
            parameters = paths.read_parameters(argument, end)
        except (paths.PathError, paths.ParameterError):
            return None
    return EnvelopeCommand(argument[len(start) : end - 1], parameters, line)


def _simple(command: Command, start: bytes) -> EnvelopeCommand | None:
    """The usual form, `FROM:<address>` with or without parameters, read as `_guess` does; None: another form.

    `start` is what is before the address, in upper case.
    """
    argument = command.argument
    if not argument.startswith(start) and argument[: len(start)].upper() != start:
        return None
    if argument.endswith(b">"):
        address, parameters = argument[len(start) : -1], b""
    else:
        address, _, behind = argument[len(start) :].partition(b">")
        parameters = behind.lstrip(b" \t")
        if not behind or len(parameters) == len(behind):
            return None
    if address.startswith(b"@") or address.translate(_PLAIN) != address:
        return None
    return EnvelopeCommand(address, parameters, command.line)


def _guess(command: Command, keyword: re.Pattern[bytes]) -> EnvelopeCommand:
    argument = command.argument
    start = keyword.match(argument)
    text = argument[start.end() :] if start else b""
    found = _PATH.match(text) or _BARE_PATH.match(text)
    if found is None:
        return EnvelopeCommand(argument, argument, command.line)
    address = found[1].strip(b" \t")
    route = _ROUTE.match(address)
    if route is not None:
        address = address[route.end() :].lstrip(b" \t")
    return EnvelopeCommand(address, text[found.end() :].rstrip(), command.line)


def _line_fault(line: bytes) -> Reply:
    """The reply to a line that has NUL, a bare CR or LF, or no CRLF at its end."""
    if b"\0" in line:
        return answers.COMMAND_NUL
    if b"\n" in line.replace(b"\r\n", b""):
        return answers.COMMAND_BARE_LF
    return answers.COMMAND_BARE_CR
