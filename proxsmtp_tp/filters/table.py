"""The filter types: one row for each FilterType that judges message text."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Literal

from proxsmtp_tp.config.filter_lines import Mode
from proxsmtp_tp.config.settings import FilterMode, FilterType, Settings
from proxsmtp_tp.filters.chain import ChainFilter
from proxsmtp_tp.filters.command import CommandFilter
from proxsmtp_tp.filters.keeping import NoKeeper, OnlySays
from proxsmtp_tp.filters.launcher import Command
from proxsmtp_tp.filters.limit import ProcessLimit
from proxsmtp_tp.filters.links import Link
from proxsmtp_tp.filters.monitor import MonitorFilter
from proxsmtp_tp.filters.parts import parts_of
from proxsmtp_tp.filters.quarantine import Quarantine
from proxsmtp_tp.filters.shadowing import Shadows
from proxsmtp_tp.filters.smtp import SmtpFilter
from proxsmtp_tp.filters.spool_space import SpoolSpace
from proxsmtp_tp.filters.types import TYPES
from proxsmtp_tp.smtp.replies import Reply

if TYPE_CHECKING:
    from proxsmtp_tp.filters.interface import Filter
    from proxsmtp_tp.filters.keeping import Keeper
    from proxsmtp_tp.filters.places import Places
    from proxsmtp_tp.filters.spool_space import Tally


ChainPlaces = Callable[[str], "Places"]
"""The places of the filter with this name, for `max=`."""


def make_filter(
    settings: Settings,
    tally: Tally | None = None,
    places: Places | None = None,
    chain_places: ChainPlaces | None = None,
    *,
    keeps: bool = True,
) -> Filter | None:
    """Make the filter of one worker; None if no message text is judged (no Filter or FilterCommand, or FilterType
    reject).

    `tally` counts what all workers store, for SpoolLimit; `places` the filters that run, for FilterProcesses;
    `chain_places` those of each filter of a chain. None: there is only this worker. With `keeps` false nothing is
    written to QuarantineDirectory: the verdict says what would be kept.

    Raises ValueError for a FilterType that has no filter, or whose FilterCommand is not valid for it.
    """
    if not settings.filtered:
        return None
    space = SpoolSpace(settings.temp_directory, settings.spool_limit, tally)
    if settings.filter:
        chain = _chain(settings, space, chain_places, _keeper(settings, keeps))
        return MonitorFilter(chain, space) if settings.filter_mode is FilterMode.MONITOR else chain
    make = _FILTERS.get(settings.filter_type)
    if make is None:
        raise ValueError(f"FilterType {settings.filter_type.value} has no filter")
    judge = make(
        settings,
        settings.filter_command or "",
        space,
        ProcessLimit(settings.filter_processes, places, settings.filter_wait),
    )
    return MonitorFilter(judge, space) if settings.filter_mode is FilterMode.MONITOR else judge


def _chain(settings: Settings, space: SpoolSpace, chain_places: ChainPlaces | None, keeper: Keeper) -> ChainFilter:
    links = []
    for line in settings.filter:
        limit = ProcessLimit(line.max, chain_places(line.name) if chain_places is not None else None, line.wait)
        member = TYPES[line.type](line, parts_of(settings, space, limit))
        links.append(Link(line, member, limit))
    judging = [link for link in links if link.line.mode is not Mode.SHADOW]
    shadows = [link for link in links if link.line.mode is Mode.SHADOW]
    return ChainFilter(judging, Shadows(shadows), space, keeper)


def _keeper(settings: Settings, keeps: bool) -> Keeper:
    if settings.quarantine_directory is None:
        return NoKeeper()
    code, _, text = settings.quarantine_reply.partition(" ")
    reply = Reply.quoting(int(code), text)
    if not keeps or settings.filter_mode is FilterMode.MONITOR:
        return OnlySays(reply)
    return Quarantine(
        settings.quarantine_directory,
        reply=reply,
        most=settings.quarantine_max,
        days=settings.quarantine_days,
        refused=settings.keep_refused,
    )


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
