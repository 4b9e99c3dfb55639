"""The date as mail writes it (RFC 5322 section 3.3). Not email.utils, which takes 1.6 MiB in each worker."""

from __future__ import annotations

import time
from typing import Final

_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def date(seconds: float) -> str:
    """A POSIX time, in local time. The names are English in every locale."""
    at = time.localtime(seconds)
    minutes = abs(at.tm_gmtoff) // 60
    zone = f"{'-' if at.tm_gmtoff < 0 else '+'}{minutes // 60:02}{minutes % 60:02}"
    day = f"{_DAYS[at.tm_wday]}, {at.tm_mday:02} {_MONTHS[at.tm_mon - 1]} {at.tm_year}"
    return f"{day} {at.tm_hour:02}:{at.tm_min:02}:{at.tm_sec:02} {zone}"
