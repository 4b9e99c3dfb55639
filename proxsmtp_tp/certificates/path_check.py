"""OpenSSL's check of a certificate chain, without a connection (X509_verify_cert(3)), through ctypes.

The module `ssl` checks a chain only inside a handshake, which then fails. Here the handshake succeeds first: a server
that is not verified gets mail at the levels may and encrypt, and DANE trusts other certificates. The library
`cryptography` of Debian 12 has no such check, and one of our own would be worse than that of OpenSSL. The check is in
the library that `ssl` uses.

Every object is freed by the function that made it. The check takes about a millisecond. It may wait for a file only if
the CAs are in a directory of files (CApath).
"""

from __future__ import annotations

import ctypes
import ssl
import time
from collections import OrderedDict
from contextlib import ExitStack, contextmanager
from ctypes import c_char_p, c_int, c_long, c_ulong, c_void_p
from functools import cache
from hashlib import sha256
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

_PURPOSE_SSL_SERVER = 2  # openssl/x509v3.h, X509_PURPOSE_SSL_SERVER
_PARTIAL_CHAIN = 0x80000  # openssl/x509_vfy.h
_TRUSTED_FIRST = 0x8000
_AUTH_LEVEL = 2
"""Keys and signatures of at least 112 bit (SSL_CTX_set_security_level(3)): no SHA-1, no RSA of 1024 bit. The level of
Debian for connections; without it any is taken here."""
KEPT_SECONDS: Final = 60.0
"""A certificate that ends, or a CA that is removed from the system, is noticed so much later."""
KEPT_MAX: Final = 1024
"""Results of one worker: about 200 octets each."""
_CHAIN_MAX = 16  # certificates: no real chain has more than six; each costs a check of a signature


class PathCheckError(Exception):
    """OpenSSL's library, or the file with the CAs, cannot be used."""


class Anchors:
    """The CAs that are trusted: those of the system, and those in `file` (PEM) instead. Raises PathCheckError."""

    def __init__(self, file: Path | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        crypto = _crypto()
        self._clock = clock
        self._crypto = crypto
        self._store = crypto.X509_STORE_new()
        self._checked: OrderedDict[bytes, tuple[float, str]] = OrderedDict()
        """What chains (their digest) had as result until when; at most KEPT_MAX."""
        if file is None:
            self._load_those_of_the_system()
        elif not crypto.X509_STORE_load_locations(self._store, str(file).encode(), None):
            crypto.ERR_clear_error()
            raise PathCheckError(f"{file}: no certificates in PEM can be read from it")

    def _load_those_of_the_system(self) -> None:
        """As X509_STORE_set_default_paths(3), without its third source: for each issuer that it does not find, it reads
        the whole directory, half a millisecond of each handshake with a self-signed server.
        """
        paths = ssl.get_default_verify_paths()
        for file, folder in ((paths.cafile, None), (None, paths.capath)):
            if file or folder:
                self._crypto.X509_STORE_load_locations(self._store, _path(file), _path(folder))
        self._crypto.ERR_clear_error()

    def __del__(self) -> None:
        if store := getattr(self, "_store", None):
            self._crypto.X509_STORE_free(store)

    def check(self, chain: Sequence[bytes]) -> str:
        """Check a chain of certificates (DER, the server's first) at this moment, for a TLS server of any name.

        Returns the reason of OpenSSL why it is not valid; "": it is valid. The result for the same chain counts for
        KEPT_SECONDS: a gateway sees the same servers again and again.
        """
        digest, now = sha256(b"".join(sha256(each).digest() for each in chain)).digest(), self._clock()
        until, result = self._checked.get(digest, (0.0, ""))
        if now >= until:
            result = _check(self._crypto, self._store, chain, 0)
            self._checked[digest] = now + KEPT_SECONDS, result
            self._checked.move_to_end(digest)
            if len(self._checked) > KEPT_MAX:
                self._checked.popitem(last=False)
        return result


def check_below(anchor: bytes, chain: Sequence[bytes]) -> str:
    """As `Anchors.check`, but only the certificate `anchor` is trusted, self-signed or not (RFC 7671, usage 2)."""
    crypto = _crypto()
    with ExitStack() as cleanup:
        store = crypto.X509_STORE_new()
        cleanup.callback(crypto.X509_STORE_free, store)
        certificate = cleanup.enter_context(_parsed(crypto, anchor))
        if certificate is None:
            return _UNREADABLE
        crypto.X509_STORE_add_cert(store, certificate)
        return _check(crypto, store, chain, _PARTIAL_CHAIN)


def _path(path: str | None) -> bytes | None:
    return path.encode() if path else None


_UNREADABLE = "a certificate cannot be read"


def _check(crypto: ctypes.CDLL, store: int, chain: Sequence[bytes], flags: int) -> str:
    if not chain:
        return "no certificate"
    if len(chain) > _CHAIN_MAX:
        return f"more than {_CHAIN_MAX} certificates"
    with ExitStack() as cleanup:
        cleanup.callback(crypto.ERR_clear_error)
        parsed = [cleanup.enter_context(_parsed(crypto, der)) for der in chain]
        if None in parsed:
            return _UNREADABLE
        others = crypto.OPENSSL_sk_new_null()
        cleanup.callback(crypto.OPENSSL_sk_free, others)
        for certificate in parsed[1:]:
            crypto.OPENSSL_sk_push(others, certificate)
        context = crypto.X509_STORE_CTX_new()
        cleanup.callback(crypto.X509_STORE_CTX_free, context)
        if not crypto.X509_STORE_CTX_init(context, store, parsed[0], others):
            return "OpenSSL cannot begin the check"
        parameters = crypto.X509_STORE_CTX_get0_param(context)
        crypto.X509_VERIFY_PARAM_set_purpose(parameters, _PURPOSE_SSL_SERVER)
        crypto.X509_VERIFY_PARAM_set_flags(parameters, flags | _TRUSTED_FIRST)
        crypto.X509_VERIFY_PARAM_set_auth_level(parameters, _AUTH_LEVEL)
        if crypto.X509_verify_cert(context) == 1:
            return ""
        number = crypto.X509_STORE_CTX_get_error(context)
        return bytes(crypto.X509_verify_cert_error_string(number)).decode("ascii", "replace") or "not valid"


@contextmanager
def _parsed(crypto: ctypes.CDLL, der: bytes) -> Iterator[int | None]:
    """An X509 object; None: the octets are no certificate, or there are more of them."""
    start = ctypes.cast(ctypes.c_char_p(der), c_void_p)
    position = c_void_p(start.value)
    certificate = crypto.d2i_X509(None, ctypes.byref(position), len(der))
    try:
        whole = (position.value or 0) - (start.value or 0) == len(der)
        yield certificate if certificate and whole else None
    finally:
        if certificate:
            crypto.X509_free(certificate)


_TEXT = c_char_p
_FUNCTIONS: dict[str, tuple[object, tuple[object, ...]]] = {
    "ERR_clear_error": (None, ()),
    "OPENSSL_sk_free": (None, (c_void_p,)),
    "OPENSSL_sk_new_null": (c_void_p, ()),
    "OPENSSL_sk_push": (c_int, (c_void_p, c_void_p)),
    "X509_STORE_CTX_free": (None, (c_void_p,)),
    "X509_STORE_CTX_get0_param": (c_void_p, (c_void_p,)),
    "X509_STORE_CTX_get_error": (c_int, (c_void_p,)),
    "X509_STORE_CTX_init": (c_int, (c_void_p, c_void_p, c_void_p, c_void_p)),
    "X509_STORE_CTX_new": (c_void_p, ()),
    "X509_STORE_add_cert": (c_int, (c_void_p, c_void_p)),
    "X509_STORE_free": (None, (c_void_p,)),
    "X509_STORE_load_locations": (c_int, (c_void_p, _TEXT, _TEXT)),
    "X509_STORE_new": (c_void_p, ()),
    "X509_VERIFY_PARAM_set_auth_level": (None, (c_void_p, c_int)),
    "X509_VERIFY_PARAM_set_flags": (c_int, (c_void_p, c_ulong)),
    "X509_VERIFY_PARAM_set_purpose": (c_int, (c_void_p, c_int)),
    "X509_free": (None, (c_void_p,)),
    "X509_verify_cert": (c_int, (c_void_p,)),
    "X509_verify_cert_error_string": (_TEXT, (c_long,)),
    "d2i_X509": (c_void_p, (c_void_p, c_void_p, c_long)),
}


@cache
def _crypto() -> ctypes.CDLL:
    """The library that `ssl` has loaded already, with the types of the functions. Raises PathCheckError."""
    major = ssl.OPENSSL_VERSION_INFO[0]
    name = "libcrypto.so.1.1" if major < 3 else f"libcrypto.so.{major}"
    try:
        library = ctypes.CDLL(name)
        for function, (result, arguments) in _FUNCTIONS.items():
            bound = getattr(library, function)
            bound.restype, bound.argtypes = result, list(arguments)
    except (AttributeError, OSError) as error:
        raise PathCheckError(
            f"certificates of servers cannot be verified: {error}: install Debian's package of libssl"
        ) from None
    return library
