"""Where the commands of this installation are, and whether the Debian package or pip installed them."""

from __future__ import annotations

import sysconfig
from pathlib import Path

SITE = Path("/usr/lib/proxsmtp-tp/site")
"""The folder of the package for the program, and for dependencies that the release does not have in the right
version."""
PACKAGED = {"proxsmtp-tp": Path("/usr/bin/proxsmtp-tp"), "proxsmtpd": Path("/usr/lib/proxsmtp-tp/proxsmtpd")}
"""The package's commands. /usr/sbin/proxsmtpd is a file of Debian's package of proxsmtpd 1.10."""
_HERE = Path(__file__).resolve().parents[2]


def packaged() -> bool:
    """Whether the package installed this program."""
    return _HERE == SITE


def command(name: str = "proxsmtp-tp") -> Path:
    """The path of one of our commands, in this installation."""
    return PACKAGED[name] if packaged() else Path(sysconfig.get_path("scripts"), name)
