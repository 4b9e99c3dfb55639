"""Durations on the command line: `30s`, `10m`, `2h`, `1d`, or a number of seconds."""

from __future__ import annotations

import argparse
import re

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def duration(text: str) -> float:
    """Seconds, for `type=` of an argparse argument."""
    found = re.fullmatch(r"([0-9]{1,9})([smhd]?)", text.strip().lower())
    if found is None or not int(found[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is no time: write a number with s, m, h or d, such as 10m")
    return float(int(found[1]) * _SECONDS[found[2] or "s"])


def shown(seconds: float) -> str:
    """The larger two units that are not zero: `2 min 5 s`."""
    whole = max(0, round(seconds))
    parts = [(whole // 86400, "d"), (whole // 3600 % 24, "h"), (whole // 60 % 60, "min"), (whole % 60, "s")]
    first = next((index for index, (number, _) in enumerate(parts) if number), len(parts) - 1)
    return " ".join(f"{number} {unit}" for number, unit in parts[first : first + 2] if number) or "0 s"
