"""Checks of all Filter lines together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxsmtp_tp.config.filter_lines import CHAIN_LIMIT, TIMEOUTS_LIMIT, Mode
from proxsmtp_tp.config.settings import FilterType

if TYPE_CHECKING:
    from collections.abc import Iterator

    from proxsmtp_tp.config.settings import Settings


def quarantine_problems(settings: Settings) -> Iterator[str]:
    """What is wrong with KeepRefused."""
    names = {line.name.lower() for line in settings.filter}
    if settings.keep_refused and settings.quarantine_directory is None:
        yield "KeepRefused: there is no place for copies: write QuarantineDirectory, too"
    for name in settings.keep_refused:
        if name.lower() not in names:
            yield f"KeepRefused: no Filter has the name {name}"


def chain_problems(settings: Settings) -> Iterator[str]:
    """What is wrong with the chain; nothing if there is none."""
    lines = settings.filter
    if not lines:
        return
    if settings.filter_command is not None:
        yield "Filter: not together with FilterCommand: write the command as a Filter line, and remove FilterCommand"
    if settings.filter_type is FilterType.REJECT:
        yield "Filter: FilterType reject refuses all mail before a filter could judge it: remove one of them"
    if len(lines) > CHAIN_LIMIT:
        yield f"Filter: {len(lines)} filters, more than {CHAIN_LIMIT}"
    names = [line.name.lower() for line in lines]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"Filter: two filters have the name {name}: each needs its own"
    seconds = sum(line.timeout + line.wait for line in lines if line.mode is not Mode.SHADOW)
    if seconds > TIMEOUTS_LIMIT:
        yield (
            f"Filter: timeout= and wait= of all filters are {seconds:g} s together, more than {TIMEOUTS_LIMIT:g} s: a"
            " client waits 10 minutes for its reply, and then sends the message again: lower them"
        )
