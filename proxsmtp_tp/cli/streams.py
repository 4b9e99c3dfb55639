"""Opens standard streams that the caller has closed.

If a descriptor below 3 is closed, the next file or socket that is opened gets this number, and lines for standard error
would be sent to a peer. So closed ones become /dev/null, as in most daemons (Python sets its streams to None).
"""

from __future__ import annotations

import os
import sys


def open_standard_streams() -> None:
    """Call it before anything else is opened. Does nothing if all three are open."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number (open(2))
            os.set_inheritable(descriptor, True)
    if sys.stdin is None:
        sys.stdin = os.fdopen(0, "r", closefd=False)
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", closefd=False)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", closefd=False)
