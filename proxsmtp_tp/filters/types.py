"""The filter types of a chain: one row for each MemberType.

A new type is a module with a `Member`, a row here, and a value of `config.filter_lines.MemberType`.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from proxsmtp_tp.filters.limit import ProcessLimit
    from proxsmtp_tp.filters.spool_space import SpoolSpace


@dataclass(frozen=True, slots=True)
class Parts:
    """What a type may need of its worker."""

    space: SpoolSpace
    """For a body or message that the filter returns: `spool.Spool(space)`."""
    limit: ProcessLimit
    """`max=`: only types with a process of their own (pipe, file, smtp) take and free places; the chain does it for
    others."""
    hostname: str = field(default_factory=socket.gethostname)
    """Our name: milter's `j` and `{daemon_name}`, rspamd's MTA-Name."""
