"""Connects to filters as the daemon would, and reports what they are: a program that doctor runs.

Input: the job of `gateway.doctor.daemon_access`, with "filters": lines as the configuration has them.
Output: for each line {"says": [..], "problem", "late"}, as check-filters shows it.
"""

from __future__ import annotations

import asyncio
import concurrent.futures.thread  # noqa: F401  (asyncio imports it late: in the daemon's namespace it may not be there)
import encodings.idna  # noqa: F401  (the same, for names of hosts)
import json
import os
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from proxsmtp_tp.config.filter_lines import parse_filter
from proxsmtp_tp.config.settings import Settings
from proxsmtp_tp.filters.describing import describe_all
from proxsmtp_tp.gateway.doctor.daemon_access import become, enter

if TYPE_CHECKING:
    from proxsmtp_tp.config.filter_lines import FilterLine

SECONDS = 4.0
"""For each filter: all are asked at the same time, and a step of doctor takes at most 10 s."""


def main() -> None:
    """Answer the question on standard input."""
    job = json.load(sys.stdin)
    lines = tuple(_limited(parse_filter(text)[0]) for text in job["filters"])
    os.environ["PATH"] = job["path"]
    enter(job)
    become(job)
    asyncio.run(_ask(Settings(filter=lines, temp_directory=job["temp"])))


def _limited(line: FilterLine) -> FilterLine:
    return replace(line, connect=min(line.connect, SECONDS), timeout=min(line.timeout, SECONDS))


async def _ask(settings: Settings) -> None:
    found = await describe_all(settings)
    json.dump([{"says": each.says, "problem": each.problem, "late": each.late} for each in found], sys.stdout)
    sys.stdout.flush()
    os._exit(0)  # asyncio would wait for a name server that does not answer


if __name__ == "__main__":
    main()
