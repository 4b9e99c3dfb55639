"""The filter types of a chain: one row for each MemberType.

A new type is a module with a `Member`, a row here, and a value of `config.filter_lines.MemberType`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from proxsmtp_tp.config.filter_lines import MemberType
from proxsmtp_tp.filters.clamd import ClamdMember
from proxsmtp_tp.filters.command import CommandFilter
from proxsmtp_tp.filters.launcher import Command
from proxsmtp_tp.filters.milter import MilterMember
from proxsmtp_tp.filters.rspamd import RspamdMember
from proxsmtp_tp.filters.run_member import FirstReachable, RunMember
from proxsmtp_tp.filters.smtp import SmtpFilter
from proxsmtp_tp.filters.spamd import SpamdMember
from proxsmtp_tp.filters.worker import WorkerMember

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxsmtp_tp.config.filter_lines import FilterLine
    from proxsmtp_tp.filters.member import Member
    from proxsmtp_tp.filters.parts import Parts


def _command(kind: Literal["pipe", "file"]) -> Callable[[FilterLine, Parts], Member]:
    def make(line: FilterLine, parts: Parts) -> Member:
        command = Command(line.command, line.timeout, parts.default)
        return RunMember(CommandFilter(command, kind, parts.space, parts.limit), parts.space)

    return make


def _scanner(line: FilterLine, parts: Parts) -> Member:
    scanners = [SmtpFilter(address, line.timeout, parts.space, parts.limit) for address in line.addresses]
    return FirstReachable([RunMember(scanner, parts.space) for scanner in scanners])


TYPES: Final[dict[MemberType, Callable[[FilterLine, Parts], Member]]] = {
    MemberType.PIPE: _command("pipe"),
    MemberType.FILE: _command("file"),
    MemberType.SMTP: _scanner,
    MemberType.MILTER: MilterMember,
    MemberType.CLAMD: ClamdMember,
    MemberType.SPAMD: SpamdMember,
    MemberType.RSPAMD: RspamdMember,
    MemberType.WORKER: WorkerMember,
}
