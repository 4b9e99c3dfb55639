"""What holds for all tests, however pytest is started."""

from __future__ import annotations

import os
import sys

# The tests start thousands of processes. Where each compiles the package again, a daemon takes twice as long to start.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
