"""The installed version, and whether its core is compiled. Read at import: after privileges were dropped the files may
not be readable.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from proxsmtp_tp.smtp import buffers

try:
    VERSION = version("proxsmtp-tp")
except PackageNotFoundError:  # run from the source tree
    VERSION = "unknown"

BUILD = "pure" if buffers.__file__.endswith(".py") else "compiled"
"""compiled: mypyc has compiled the core (docs/architecture.md, "Compiled modules"). pure: Python runs the sources."""
