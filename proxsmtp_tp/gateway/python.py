"""The command that starts this interpreter again, for a module of ours."""

from __future__ import annotations

import sys

PYTHON = (sys.executable, "-P")
"""-P: without it, `-m` imports from the current directory first, and other users may be able to write there."""
