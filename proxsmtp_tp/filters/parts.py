"""What a filter type of a chain may need of its worker."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from proxsmtp_tp.config.settings import FilterDefault
from proxsmtp_tp.filters.limit import ProcessLimit
from proxsmtp_tp.filters.spool_space import SpoolSpace

if TYPE_CHECKING:
    from proxsmtp_tp.config.settings import Settings


@dataclass(frozen=True, slots=True)
class Parts:
    """What a type may need of its worker."""

    space: SpoolSpace
    """For a body or message that the filter returns: `spool.Spool(space)`."""
    limit: ProcessLimit
    """`max=` and `wait=`: a PlacingMember takes and frees places, for the others the chain does it."""
    default: FilterDefault = FilterDefault.REJECT
    """FilterDefault."""
    hostname: str = field(default_factory=socket.gethostname)
    """Our name: milter's `j` and `{daemon_name}`, rspamd's MTA-Name."""
    macros: tuple[tuple[str, str], ...] = ()
    """MilterMacro."""


def parts_of(settings: Settings, space: SpoolSpace, limit: ProcessLimit) -> Parts:
    """With what the configuration says."""
    hostname = settings.hostname or socket.gethostname()
    return Parts(space, limit, settings.filter_default, hostname, settings.milter_macro)
