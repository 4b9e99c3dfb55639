"""The installed version, and whether its core is compiled. Read at import: after privileges were dropped the files may
not be readable.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress

from proxsmtp_tp.smtp import buffers


def _installed() -> str:
    """The version in the name of the installed package's folder (PyPA, "Recording installed projects").

    Not importlib.metadata, which takes 3.5 MiB in each worker.
    """
    for folder in sys.path:
        with suppress(OSError):
            for name in os.listdir(folder or "."):  # noqa: PTH208
                if name.startswith("proxsmtp_tp-") and name.endswith(".dist-info"):
                    return name.removeprefix("proxsmtp_tp-").removesuffix(".dist-info")
    return "unknown"  # run from the source tree


VERSION = _installed()

BUILD = "pure" if buffers.__file__.endswith(".py") else "compiled"
"""compiled: mypyc has compiled the core (docs/architecture.md, "Compiled modules"). pure: Python runs the sources."""
