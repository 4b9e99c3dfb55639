"""The optional libraries of the extra `tls`. They are imported where they are used: a proxy without TLS has neither.

Debian 12 has cryptography 38.0.4 and dnspython 2.3.0: nothing newer is used.
"""

from __future__ import annotations

import importlib
from typing import Any

_PACKAGES = {"cryptography": "python3-cryptography", "dns": "python3-dnspython"}
_PROJECTS = {"cryptography": "cryptography", "dns": "dnspython"}


class MissingLibraryError(Exception):
    """An optional library is not installed. The text says what to install."""


def load(module: str, purpose: str) -> Any:
    """Import a module of cryptography or dnspython. `purpose`: what needs it, for the error.

    Raises MissingLibraryError.
    """
    top = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingLibraryError(
            f"{purpose} needs the Python library {_PROJECTS[top]}: apt install {_PACKAGES[top]},"
            f" or pip install 'proxsmtp-tp[tls]' ({error})"
        ) from None
