"""The mail that real senders send, and the odd kinds that break proxies: made here, the same in every run.

Each message says what must come of it. What it carries is exact: CRLF line ends, no repair on the way.
"""

from __future__ import annotations

import base64
import random
import textwrap
from dataclasses import dataclass
from email.message import EmailMessage
from email.policy import SMTP, SMTPUTF8
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

GTUBE = "XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"
SENDER = "alice@sender.example"


class Outcome(Enum):
    """What the gateway's filter makes of a message."""

    DELIVERED = "delivered"
    REFUSED = "refused"
    DISCARDED = "discarded"


@dataclass(frozen=True, slots=True)
class CorpusMessage:
    """One message with its envelope. `name` stands in its header X-Corpus, so that it is known again."""

    name: str
    octets: bytes
    recipients: tuple[str, ...]
    sender: str = SENDER
    mail_options: tuple[str, ...] = ()
    rcpt_options: tuple[str, ...] = ()
    outcome: Outcome = Outcome.DELIVERED
    report: bool = False
    """The sender is told of the delivery (RFC 3461)."""


def messages(domain: str, run: str) -> Iterator[CorpusMessage]:
    """At least 50 messages to `domain`; `run` makes their names unique."""
    for maker in MAKERS:
        for variant in range(2):
            name = f"{run}.{maker.__name__.strip('_')}.{variant}"
            yield maker(name, domain, random.Random(f"{maker.__name__} {variant}"))


def _text(name: str, body: str, *headers: str) -> bytes:
    """A message of these header lines and this body; LF is written as CRLF."""
    fixed = [f"X-Corpus: {name}", f"From: <{SENDER}>", f"Message-ID: <{name}@sender.example>"]
    return ("\n".join([*fixed, *headers]) + "\n\n" + body).replace("\n", "\r\n").encode()


def _words(source: random.Random, count: int) -> str:
    return " ".join("".join(source.choices("etaoinshrdlu", k=source.randint(2, 9))) for _ in range(count))


def _to_bob(name: str, octets: bytes, domain: str, *mail_options: str) -> CorpusMessage:
    return CorpusMessage(name, octets, (f"bob@{domain}",), mail_options=mail_options)


def _plain(name: str, domain: str, source: random.Random) -> CorpusMessage:
    return _to_bob(name, _text(name, textwrap.fill(_words(source, 120)) + "\n", "Subject: plain"), domain)


def _one_line(name: str, domain: str, source: random.Random) -> CorpusMessage:
    return _to_bob(name, _text(name, "x\n", "Subject: one octet"), domain)


def _attachments(name: str, domain: str, source: random.Random) -> CorpusMessage:
    message = EmailMessage(policy=SMTP)
    message["X-Corpus"], message["From"], message["To"] = name, SENDER, f"bob@{domain}"
    message["Subject"] = "two attachments"
    message.set_content(_words(source, 200))
    message.add_alternative(f"<p>{_words(source, 200)}</p>", subtype="html")
    message.add_attachment(source.randbytes(30_000), maintype="image", subtype="png", filename="a b.png")
    message.add_attachment(source.randbytes(777), maintype="application", subtype="zip", filename="ü.zip")
    message.set_boundary("=_corpus_boundary")
    return _to_bob(name, message.as_bytes(), domain)


def _megabyte(name: str, domain: str, source: random.Random) -> CorpusMessage:
    body = base64.encodebytes(source.randbytes(1_000_000)).decode()
    return _to_bob(name, _text(name, body, "Content-Transfer-Encoding: base64"), domain)


def _eight_bit(name: str, domain: str, source: random.Random) -> CorpusMessage:
    body = "".join(source.choices("äöüß€漢字 \n", k=4000)) + "\n"
    header = "MIME-Version: 1.0", "Content-Type: text/plain; charset=utf-8", "Content-Transfer-Encoding: 8bit"
    return _to_bob(name, _text(name, body, *header), domain, "BODY=8BITMIME")


def _any_octet(name: str, domain: str, source: random.Random) -> CorpusMessage:
    """Every octet but NUL, CR and LF, in no character set."""
    octets = bytes(value for value in range(1, 256) if value not in b"\r\n")
    body = b"\r\n".join(bytes(source.sample(octets, 200)) for _ in range(50)) + b"\r\n"
    return _to_bob(name, _text(name, "", "Subject: octets") + body, domain, "BODY=8BITMIME")


def _folded_headers(name: str, domain: str, source: random.Random) -> CorpusMessage:
    references = "\n ".join(f"<{_words(source, 1)}.{number}@sender.example>" for number in range(200))
    tabs = "X-Tabs: one\n\ttwo\n\t\n\tthree"
    return _to_bob(name, _text(name, "folded\n", f"References: {references}", tabs, "Subject:\n folded"), domain)


def _long_headers(name: str, domain: str, source: random.Random) -> CorpusMessage:
    long = [f"X-Long-{length}: {'h' * length}" for length in (500, 980, 2_000, 20_000)]
    return _to_bob(name, _text(name, "long header lines\n", *long), domain)


def _many_headers(name: str, domain: str, source: random.Random) -> CorpusMessage:
    many = [f"X-Header-{number}: {_words(source, 6)}" for number in range(800)]
    return _to_bob(name, _text(name, "many headers\n", *many), domain)


def _long_lines(name: str, domain: str, source: random.Random) -> CorpusMessage:
    body = "".join("y" * length + "\n" for length in (997, 998, 999, 1000, 1001, 2047, 2048, 2049, 70_000))
    return _to_bob(name, _text(name, body, "Subject: long lines"), domain)


def _dots(name: str, domain: str, source: random.Random) -> CorpusMessage:
    lines = [".", "..", "...", ".x", ". ", " .", "", "x.", ".\t", "."]
    body = "\n".join([".", *source.sample(lines, len(lines)), *source.choices(lines, k=300), "."]) + "\n"
    return _to_bob(name, _text(name, body, "Subject: dots"), domain)


def _only_dot(name: str, domain: str, source: random.Random) -> CorpusMessage:
    return _to_bob(name, _text(name, ".\n", "Subject: a lone dot"), domain)


def _empty_body(name: str, domain: str, source: random.Random) -> CorpusMessage:
    return _to_bob(name, _text(name, "", "Subject: nothing"), domain)


def _empty_lines(name: str, domain: str, source: random.Random) -> CorpusMessage:
    return _to_bob(name, _text(name, "\n" * source.randint(3, 40), "Subject: empty lines"), domain)


def _trailing_space(name: str, domain: str, source: random.Random) -> CorpusMessage:
    return _to_bob(name, _text(name, "space \ntab\t\n  \n\t\n\n\n", "Subject: trailing white space  "), domain)


def _commands(name: str, domain: str, source: random.Random) -> CorpusMessage:
    body = f"QUIT\nRSET\nMAIL FROM:<eve@evil.example>\nRCPT TO:<bob@{domain}>\nDATA\n250 Ok\n354 go on\n"
    return _to_bob(name, _text(name, body + "From eve Sat Jan  1 00:00:00 2000\n>From\n"), domain)


def _forwarded(name: str, domain: str, source: random.Random) -> CorpusMessage:
    inner = EmailMessage(policy=SMTP)
    inner["Subject"] = "inside"
    inner.set_content(".\n..\n" + _words(source, 50))
    message = EmailMessage(policy=SMTP)
    message["X-Corpus"], message["From"], message["Subject"] = name, SENDER, "forwarded"
    message.set_content("see below")
    message.add_attachment(inner)
    message.set_boundary("=_corpus_boundary")
    return _to_bob(name, message.as_bytes(), domain)


def _many_recipients(name: str, domain: str, source: random.Random) -> CorpusMessage:
    recipients = tuple(f"user{number}@{domain}" for number in range(40))
    return CorpusMessage(name, _text(name, "to many\n"), recipients)


def _odd_recipients(name: str, domain: str, source: random.Random) -> CorpusMessage:
    locals_ = ("o'hara", "a/b=c", '"a b"', '"x\\"y"', "plus+tag", "%x$y!z", "a" * 64)
    return CorpusMessage(name, _text(name, "to odd names\n"), tuple(f"{local}@{domain}" for local in locals_))


def _null_sender(name: str, domain: str, source: random.Random) -> CorpusMessage:
    return CorpusMessage(name, _text(name, "from nobody\n"), (f"bob@{domain}",), sender="")


def _odd_sender(name: str, domain: str, source: random.Random) -> CorpusMessage:
    sender = f"bounce+bob={domain}'`$x|{source.randint(1, 9)}@sender.example"
    return CorpusMessage(name, _text(name, "from an odd name\n"), (f"bob@{domain}",), sender=sender)


def _delivery_report(name: str, domain: str, source: random.Random) -> CorpusMessage:
    return CorpusMessage(
        name,
        _text(name, "tell me\n"),
        (f"bob@{domain}",),
        mail_options=("RET=HDRS", f"ENVID={name}"),
        rcpt_options=("NOTIFY=SUCCESS,FAILURE", f"ORCPT=rfc822;robert+2B{name}@{domain}"),
        report=True,
    )


def _international(name: str, domain: str, source: random.Random) -> CorpusMessage:
    message = EmailMessage(policy=SMTPUTF8)
    message["X-Corpus"], message["From"] = name, "Jürgen <jürgen@sender.example>"
    message["To"], message["Subject"] = f"用户@{domain}", "Grüße, 用户"
    message.set_content("ä\n.\nö\n", cte="8bit")
    return CorpusMessage(
        name,
        message.as_bytes(),
        (f"用户@{domain}", f"δοκιμή@{domain}"),
        sender="jürgen@sender.example",
        mail_options=("SMTPUTF8", "BODY=8BITMIME"),
    )


def _unterminated_by_filter(name: str, domain: str, source: random.Random) -> CorpusMessage:
    return _to_bob(name, _text(name, _words(source, 30) + "\n", "X-Corpus-Filter: unterminated"), domain)


def _line_feeds_by_filter(name: str, domain: str, source: random.Random) -> CorpusMessage:
    body = textwrap.fill(_words(source, 300)) + "\n.\n..\n"
    return _to_bob(name, _text(name, body, "X-Corpus-Filter: line-feeds"), domain)


def _refused(name: str, domain: str, source: random.Random) -> CorpusMessage:
    return CorpusMessage(name, _text(name, f"{GTUBE}\n"), (f"bob@{domain}",), outcome=Outcome.REFUSED)


def _refused_deep_inside(name: str, domain: str, source: random.Random) -> CorpusMessage:
    body = f"{_words(source, 50_000)}\n{GTUBE}\n{_words(source, 50_000)}\n"
    return CorpusMessage(name, _text(name, body), (f"bob@{domain}", f"carol@{domain}"), outcome=Outcome.REFUSED)


def _discarded(name: str, domain: str, source: random.Random) -> CorpusMessage:
    octets = _text(name, "away with it\n", "X-Filter-Action: discard")
    return CorpusMessage(name, octets, (f"bob@{domain}",), outcome=Outcome.DISCARDED)


MAKERS: tuple[Callable[[str, str, random.Random], CorpusMessage], ...] = (
    _plain,
    _one_line,
    _attachments,
    _megabyte,
    _eight_bit,
    _any_octet,
    _folded_headers,
    _long_headers,
    _many_headers,
    _long_lines,
    _dots,
    _only_dot,
    _empty_body,
    _empty_lines,
    _trailing_space,
    _commands,
    _forwarded,
    _many_recipients,
    _odd_recipients,
    _null_sender,
    _odd_sender,
    _delivery_report,
    _international,
    _unterminated_by_filter,
    _line_feeds_by_filter,
    _refused,
    _refused_deep_inside,
    _discarded,
)
