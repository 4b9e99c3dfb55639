"""The groups for key exchange in TLS 1.3: elliptic curves only.

OpenSSL also takes the finite fields of RFC 7919. With the largest, ffdhe8192, one handshake takes a tenth of a second
of our processor time, a hundred times that of a curve, and the peer need not calculate anything (CVE-2002-20001). All
programs have curves: RFC 8446 section 9.1 demands P-256.

Python has a function for it from 3.15 on. Before, OpenSSL's own is called (SSL_CTX_set1_groups_list(3)), in the library
that the module `ssl` itself uses: another copy could have other structures. It needs the address of OpenSSL's context,
which Python keeps in its own object. Nothing is called before `_layout_known` has shown that this is as expected.
`set_ecdh_curve`, the other way, allows one curve only: every client that begins with another one needs a round trip
more, and a server without that curve could not be reached.
"""

from __future__ import annotations

import _ssl
import ctypes
import ssl
import sys
from functools import cache
from typing import Any, Final

_CURVES: Final = "X25519:P-256:X448:P-384:P-521"
_LISTS: Final = (f"X25519MLKEM768:{_CURVES}", _CURVES, "P-256:P-384:P-521")
"""The first that the library knows counts: post-quantum from OpenSSL 3.5 on; the last is for a library in FIPS mode."""
_SET_GROUPS_LIST: Final = 92  # openssl/ssl.h, SSL_CTRL_SET_GROUPS_LIST


def limit_groups(context: ssl.SSLContext) -> bool:
    """Allow only curves. False: the library cannot be told, so the context is as OpenSSL makes it."""
    given: Any = context
    if hasattr(given, "set_groups"):
        return any(_accepted(given, groups) for groups in _LISTS)
    library = _library()
    if library is None or not _layout_known():
        return False
    pointer = _Context.from_address(id(context) + object.__basicsize__).ctx
    done = any(library.SSL_CTX_ctrl(pointer, _SET_GROUPS_LIST, 0, groups.encode()) == 1 for groups in _LISTS)
    library.ERR_clear_error()
    return done


class _Context(ctypes.Structure):
    """The beginning of PySSLContext, after the head that every object has (Modules/_ssl.c of CPython 3.11 to 3.14)."""

    _fields_ = (
        ("ctx", ctypes.c_void_p),
        ("alpn_protocols", ctypes.c_void_p),
        ("alpn_protocols_len", ctypes.c_uint),
    )


@cache
def _layout_known() -> bool:
    """Whether contexts have the beginning that `_Context` describes: memory is only read.

    The fields for ALPN, which follow the address, must be empty first, and then have the length of what was set.
    Two contexts must have different addresses, which do not change.
    """
    head = object.__basicsize__
    if sys.implementation.name != "cpython" or not (3, 11) <= sys.version_info < (3, 15):
        return False
    if ssl.SSLContext.__basicsize__ < head + ctypes.sizeof(_Context):
        return False
    contexts = [ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) for _ in range(2)]
    seen = [_Context.from_address(id(context) + head) for context in contexts]
    before = [each.ctx for each in seen]
    empty = not any(each.alpn_protocols or each.alpn_protocols_len for each in seen)
    protocols = (["smtp"], ["smtp", "x"])
    for context, names in zip(contexts, protocols, strict=True):
        context.set_alpn_protocols(names)
    lengths = [sum(1 + len(name) for name in names) for names in protocols]
    filled = [each.alpn_protocols_len for each in seen] == lengths and all(each.alpn_protocols for each in seen)
    return empty and filled and all(before) and before[0] != before[1] and [each.ctx for each in seen] == before


def _accepted(context: Any, groups: str) -> bool:
    try:
        context.set_groups(groups)
    except (ssl.SSLError, ValueError):
        return False
    return True


@cache
def _library() -> ctypes.CDLL | None:
    """OpenSSL as the module `ssl` has it; None: it is part of Python's own program, out of reach."""
    try:
        library = ctypes.CDLL(_ssl.__file__)
        library.SSL_CTX_ctrl.restype = ctypes.c_long
        library.SSL_CTX_ctrl.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_long, ctypes.c_char_p]
        library.ERR_clear_error.restype, library.ERR_clear_error.argtypes = None, []
    except (AttributeError, OSError):
        return None
    return library
