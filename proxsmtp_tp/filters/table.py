"""The filter types: one row for each FilterType that judges message text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from proxsmtp_tp.config.settings import FilterMode, FilterType, Settings
from proxsmtp_tp.filters.command import CommandFilter
from proxsmtp_tp.filters.launcher import Command
from proxsmtp_tp.filters.limit import ProcessLimit
from proxsmtp_tp.filters.monitor import MonitorFilter
from proxsmtp_tp.filters.smtp import SmtpFilter
from proxsmtp_tp.filters.spool_space import SpoolSpace

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxsmtp_tp.filters.interface import Filter
    from proxsmtp_tp.filters.places import Places
    from proxsmtp_tp.filters.spool_space import Tally


def make_filter(settings: Settings, tally: Tally | None = None, places: Places | None = None) -> Filter | None:
    """Make the filter of one worker; None if no message text is judged (no FilterCommand, or FilterType reject).

    `tally` counts what all workers store, for SpoolLimit; `places` the filters that run, for FilterProcesses. None:
    there is only this worker.

    Raises ValueError for a FilterType that has no filter, or whose FilterCommand is not valid for it.
    """
    if settings.filter_command is None or settings.filter_type is FilterType.REJECT:
        return None
    make = _FILTERS.get(settings.filter_type)
    if make is None:
        raise ValueError(f"FilterType {settings.filter_type.value} has no filter")
    space = SpoolSpace(settings.temp_directory, settings.spool_limit, tally)
    judge = make(settings, settings.filter_command, space, ProcessLimit(settings.filter_processes, places))
    return MonitorFilter(judge, space) if settings.filter_mode is FilterMode.MONITOR else judge


def _command(kind: Literal["pipe", "file"]) -> Callable[[Settings, str, SpoolSpace, ProcessLimit], Filter]:
    def make(settings: Settings, command: str, space: SpoolSpace, limit: ProcessLimit) -> Filter:
        return CommandFilter(Command(command, settings.filter_timeout, settings.filter_default), kind, space, limit)

    return make


def _scanner(settings: Settings, _command: str, space: SpoolSpace, limit: ProcessLimit) -> Filter:
    return SmtpFilter(settings.filter_address, settings.filter_timeout, space, limit)


_FILTERS: Final[dict[FilterType, Callable[[Settings, str, SpoolSpace, ProcessLimit], Filter]]] = {
    FilterType.PIPE: _command("pipe"),
    FilterType.FILE: _command("file"),
    FilterType.SMTP: _scanner,
}
