"""How this interpreter is started again for a module of ours."""

from __future__ import annotations

import sys

PYTHON = (sys.executable, "-P")
"""-P: `-m` would else look into the current folder first, and root may stand in anybody's."""
