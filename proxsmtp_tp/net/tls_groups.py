"""The groups for key exchange in TLS 1.3: elliptic curves only.

OpenSSL also takes the finite fields of RFC 7919. With the largest, ffdhe8192, one handshake takes a tenth of a second
of our processor time, a hundred times that of a curve, and the peer need not calculate anything (CVE-2002-20001). All
programs have curves: RFC 8446 section 9.1 demands P-256.

Python has a function for it from 3.15 on. Before, OpenSSL's own is called (SSL_CTX_set1_groups_list(3)), in the library
that the module `ssl` itself uses: another copy could have other structures.
"""

from __future__ import annotations

import _ssl
import ctypes
import ssl
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
    if library is None:
        return False
    # PySSLContext (Modules/_ssl.c of Python 3.8 to 3.14): behind the head of every object comes the SSL_CTX.
    pointer = ctypes.c_void_p.from_address(id(context) + object.__basicsize__).value
    done = any(library.SSL_CTX_ctrl(pointer, _SET_GROUPS_LIST, 0, groups.encode()) == 1 for groups in _LISTS)
    library.ERR_clear_error()
    return done


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
