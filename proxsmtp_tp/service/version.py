"""The version that is installed. Read when imported: later the files may be out of the daemon's reach."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

try:
    VERSION = version("proxsmtp-tp")
except PackageNotFoundError:  # run from the source tree
    VERSION = "unknown"
