"""Where this installation has its commands, and who made it: Debian's package of this project, or pip."""

from __future__ import annotations

import sysconfig
from pathlib import Path

SITE = Path("/usr/lib/proxsmtp-tp/site")
"""Where the package has the program, with what it needs that the release does not have in the right version."""
PACKAGED = {"proxsmtp-tp": Path("/usr/bin/proxsmtp-tp"), "proxsmtpd": Path("/usr/lib/proxsmtp-tp/proxsmtpd")}
"""The package's commands. /usr/sbin/proxsmtpd is a file of Debian's package of proxsmtpd 1.10."""
_HERE = Path(__file__).resolve().parents[2]


def packaged() -> bool:
    """Whether this program is the one of the package."""
    return _HERE == SITE


def command(name: str = "proxsmtp-tp") -> Path:
    """The path of one of our commands, in this installation."""
    return PACKAGED[name] if packaged() else Path(sysconfig.get_path("scripts"), name)
