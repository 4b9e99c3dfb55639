r"""Reverse-path and forward-path of MAIL and RCPT: a path that servers could read in different ways is refused
(RFC 5321 sections 4.1.2, 4.1.3).

Accepted in addition to the grammar, because senders use it and all servers read it in the same way: blanks after the
colon, a path without angle brackets, dots anywhere in a local part, quotes and backslashes of RFC 822, `_` in a domain
and a dot at its end. Not accepted: comments, blanks and groups (RFC 5322 has them in headers), an address without a
domain except the recipient Postmaster, 8-bit octets that are not UTF-8 (RFC 6531), and a domain that IDNA maps to
another one. One thing that the grammar allows is refused: a local part with both a quote and a blank, because Exim 4.96
changes it.

Guarantees of a `Path`: its address is canonical. The source route is removed, the local part is a Dot-string if
possible, otherwise one Quoted-string with no more backslashes than needed, and the domain ends without a dot. If the
canonical form is read again, the result is the same. tests/mta compares the readings with Postfix, Exim, sendmail and
OpenSMTPD.
"""

from __future__ import annotations

import re
import unicodedata
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import NamedTuple

_ATEXT = rb"A-Za-z0-9!#$%&'*+/=?^_`{|}~\x80-\xff-"
_PAIR = rb"\\[ -~\x80-\xff]"
_WORD = rb'(?:"(?:[ !#-\[\]-~\x80-\xff]|' + _PAIR + rb')*+"|(?:[' + _ATEXT + rb"]|" + _PAIR + rb")*+)"
_LOCAL_PART = re.compile(_WORD + rb"(?:\." + _WORD + rb")*+")
_DOT_STRING = re.compile(rb"[" + _ATEXT + rb"]++(?:\.[" + _ATEXT + rb"]++)*+")
_QUOTING = re.compile(rb'\\(.)|"', re.DOTALL)
_MUST_QUOTE = re.compile(rb'(["\\])')
_DOMAIN = re.compile(rb"\[[0-9A-Za-z.:]++\]|[0-9A-Za-z_\x80-\xff-]++(?:\.[0-9A-Za-z_\x80-\xff-]++)*+\.?")
_IPV6_TAG = re.compile(r"IPv6:", re.IGNORECASE)
_BLANKS = re.compile(rb"[ \t]*+")
_PARAMETER = re.compile(rb"[ \t]++[0-9A-Za-z][0-9A-Za-z-]*+(?:=[!-<>-~\x80-\xff]++)?+(?=[ \t]|\Z)")
_ATOMS = rb"[0-9A-Za-z!#$%&'*+/=?^_`{|}~-]++(?:\.[0-9A-Za-z!#$%&'*+/=?^_`{|}~-]++)*+"
PLAIN = re.compile(rb"<" + _ATOMS + rb"@[0-9A-Za-z_-]++(?:\.[0-9A-Za-z_-]++)*+>")
"""A path in ASCII without quotes, literal and route, as most are: it is canonical, and there is one reading."""
_POSTMASTER = b"postmaster"

_FULL_STOPS = frozenset("\u3002\uff0e\uff61")
"""Characters that IDNA reads as the dot between two labels (RFC 3490 section 3.1)."""

_JOINERS = frozenset("\u200c\u200d")
_VIRAMA = 9
"""Canonical combining class of the signs after which a joiner is valid (RFC 5892 appendix A)."""


class PathError(ValueError):
    """Servers could read the path in more than one way."""


class ParameterError(ValueError):
    """The text after the path is no ESMTP parameter (RFC 5321 section 4.1.1.11)."""


class Path(NamedTuple):
    """`address` is canonical, without angle brackets: b"" is the null reverse-path. `parameters` is what follows it."""

    address: bytes
    parameters: bytes
    exact: bool
    """Whether the path was written exactly in the canonical form `<address>`."""


def read_reverse_path(text: bytes) -> Path:
    """Read what follows `FROM:`. PathError or ParameterError if it has no single reading."""
    start = _blanks(text, 0)
    if text.startswith(b"<>", start):
        return Path(b"", read_parameters(text, start + 2), exact=True)
    return _read(text, start)


def read_forward_path(text: bytes) -> Path:
    """Read what follows `TO:`. PathError or ParameterError if it has no single reading.

    `<Postmaster>`, in any case, is the one address without a domain.
    """
    return _read(text, _blanks(text, 0), may_be_postmaster=True)


def _read(text: bytes, start: int, *, may_be_postmaster: bool = False) -> Path:
    bracket = text.startswith(b"<", start)
    local_start = _behind_route(text, start + bracket)
    local_end = _matched(_LOCAL_PART, text, local_start)
    local_part = _canonical_local_part(text[local_start:local_end])
    if text.startswith(b"@", local_end):
        end = _matched(_DOMAIN, text, local_end + 1)
        address = local_part + b"@" + _canonical_domain(text[local_end + 1 : end])
    elif may_be_postmaster and bracket and local_start == start + 1 and local_part.lower() == _POSTMASTER:
        address, end = local_part, local_end
    else:
        raise PathError("no domain")
    if bracket:
        if not text.startswith(b">", end):
            raise PathError("no > behind the address")
        end += 1
    written = text[start:end]
    return Path(address, read_parameters(text, end), exact=written == b"<" + address + b">")


def _behind_route(text: bytes, start: int) -> int:
    """The index at which the mailbox begins: a source route (A-d-l) is ignored (RFC 5321 section 4.1.1.3)."""
    if not text.startswith(b"@", start):
        return start
    end = start
    while text.startswith(b"@", end):
        domain_end = _matched(_DOMAIN, text, end + 1)
        _canonical_domain(text[end + 1 : domain_end])
        end = domain_end + 1
        if text.startswith(b":", domain_end):
            return end
        if not text.startswith(b",@", domain_end):
            break
    raise PathError("no source route")


def _canonical_local_part(written: bytes) -> bytes:
    octets = _QUOTING.sub(lambda found: found[1] or b"", written)
    if not written or not _is_utf8(octets):
        raise PathError("no local part")
    if _DOT_STRING.fullmatch(octets):
        return octets
    if b'"' in octets and b" " in octets:
        raise PathError("a blank and a quote in one local part: Exim changes them")
    return b'"' + _MUST_QUOTE.sub(rb"\\\1", octets) + b'"'


def _canonical_domain(written: bytes) -> bytes:
    if written.startswith(b"["):
        _check_literal(written[1:-1].decode("ascii"))
        return written
    domain = written.removesuffix(b".")
    if not domain.isascii():
        _check_u_labels(domain)
    return domain


def _check_literal(text: str) -> None:
    """Check an IPv4 or IPv6 address literal (RFC 5321 section 4.1.3). Leading zeros, which could mean octal, are
    refused.
    """
    tag = _IPV6_TAG.match(text)
    try:
        if tag is None:
            IPv4Address(text)
        else:
            IPv6Address(text[tag.end() :])
    except AddressValueError as error:
        raise PathError("no address literal") from error


def _check_u_labels(domain: bytes) -> None:
    """Refuse labels that show one domain and look up another: IDNA maps, ignores or splits some characters."""
    try:
        text = domain.decode("utf-8")
    except UnicodeDecodeError as error:
        raise PathError("no UTF-8") from error
    if unicodedata.normalize("NFKC", text) != text or not _FULL_STOPS.isdisjoint(text):
        raise PathError("a domain that IDNA maps to another one")
    for index, character in enumerate(text):
        if character.isascii():
            continue
        if character in _JOINERS:
            before, after = text[index - 1 : index], text[index + 1 : index + 2]
            joins = bool(before) and unicodedata.combining(before) == _VIRAMA
            if not joins and {_bidirectional(before), _bidirectional(after)} != {"AL"}:
                raise PathError("a joiner in an invalid place")
        elif unicodedata.category(character)[0] not in "LMN":
            raise PathError("no letter, mark or digit")


def _bidirectional(character: str) -> str:
    return unicodedata.bidirectional(character) if character else ""


def read_parameters(text: bytes, start: int) -> bytes:
    """Read what follows a path that ends before `start`. PathError or ParameterError."""
    if start < len(text) and text[start] not in b" \t":
        raise PathError("no blank after the path")
    end = start
    while found := _PARAMETER.match(text, end):
        end = found.end()
    if _blanks(text, end) != len(text) or not _is_utf8(text[start:end]):
        raise ParameterError("no ESMTP parameter")
    return text[start:end].strip(b" \t")


def _blanks(text: bytes, start: int) -> int:
    return _matched(_BLANKS, text, start)


def _matched(pattern: re.Pattern[bytes], text: bytes, start: int) -> int:
    """The index at which a match that begins at `start` ends."""
    found = pattern.match(text, start)
    if found is None:
        raise PathError("no domain")
    return found.end()


def _is_utf8(octets: bytes) -> bool:
    try:
        octets.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
