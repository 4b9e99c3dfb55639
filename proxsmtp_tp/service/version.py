"""The installed version. Read at import: after privileges were dropped the files may not be readable."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

try:
    VERSION = version("proxsmtp-tp")
except PackageNotFoundError:  # run from the source tree
    VERSION = "unknown"
