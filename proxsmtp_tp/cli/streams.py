"""Opens standard streams that the caller has closed.

A descriptor below 3 that is free is given to the next file or socket that is opened, and what is written to standard
error then goes to a peer. So they are /dev/null, as most daemons make them (Python has None in their place).
"""

from __future__ import annotations

import os
import sys


def open_standard_streams() -> None:
    """Before anything else is opened. Does nothing where all three are there."""
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
