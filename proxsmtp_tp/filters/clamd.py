"""Filter type clamd: ClamAV's daemon scans each message for viruses (INSTREAM, over a unix socket or TCP).

A message that clamd did not scan as a whole is a failure of this filter, never clean: see `protocols.clamd`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxsmtp_tp.filters.asking import READ_SIZE, ask, connection
from proxsmtp_tp.filters.member import Judgement
from proxsmtp_tp.filters.protocols import clamd
from proxsmtp_tp.filters.protocols.errors import ProtocolError
from proxsmtp_tp.filters.streams import Servers
from proxsmtp_tp.filters.verdict import Action
from proxsmtp_tp.smtp.replies import Reply

if TYPE_CHECKING:
    from proxsmtp_tp.config.filter_lines import FilterLine
    from proxsmtp_tp.filters.interface import FilterRequest
    from proxsmtp_tp.filters.mail import Mail
    from proxsmtp_tp.filters.parts import Parts
    from proxsmtp_tp.filters.streams import Stream


class ClamdMember:
    """A Member."""

    def __init__(self, line: FilterLine, _parts: Parts) -> None:
        self._servers = Servers(line.addresses, line.connect)

    async def judge(self, mail: Mail, _request: FilterRequest) -> Judgement:
        """Member."""
        async with connection(self._servers) as stream:
            found = await ask(stream, clamd.request(mail.chunks()), _read_verdict)
        if not found:
            return Judgement(detail="clean")
        return Judgement(Action.REJECT, Reply.quoting(554, f"5.7.1 Virus found: {found}"), "virus", found)

    async def describe(self) -> list[str]:
        """Ask for the version of clamd and its database. Raises FilterFailedError."""
        async with connection(self._servers) as stream:
            line = await ask(stream, [clamd.VERSION], _read_line)
            return [f"{stream.address}: {line.decode('ascii', 'replace').strip()}"]

    def close(self) -> None:
        """Member: no connection is kept."""


async def _read_line(stream: Stream) -> bytes:
    answer = bytearray()
    while (line := clamd.complete(answer)) is None:
        data = await stream.read(READ_SIZE)
        if not data:
            raise ProtocolError("it closed the connection without an answer")
        answer += data
    return line


async def _read_verdict(stream: Stream) -> str:
    return clamd.virus(await _read_line(stream))
