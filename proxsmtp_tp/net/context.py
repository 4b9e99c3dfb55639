"""What all connections of one worker share: the configuration, the filter, the table of all workers.

Made by `proxy`, used by `connection` and `upstream`, which know nothing else about their worker.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

    from proxsmtp_tp.config.settings import Settings
    from proxsmtp_tp.filters.interface import Filter
    from proxsmtp_tp.net.admission import Admission
    from proxsmtp_tp.net.log_limit import LogLimit
    from proxsmtp_tp.net.refusals import Refusals
    from proxsmtp_tp.net.watching import Watch
    from proxsmtp_tp.session.options import Options
    from proxsmtp_tp.session.state import Reason, Wait


@dataclass(slots=True)
class WorkerContext:
    """One for each worker. `ending` changes, the rest is as it was made."""

    settings: Settings
    loop: asyncio.AbstractEventLoop
    admission: Admission
    worker: int
    """The worker's row in `admission`."""
    listening_ports: frozenset[int]
    """The ports of this instance: a connection to one of them has no original destination."""
    options: Options
    limits: dict[Wait, float]
    """Seconds for each thing that a session waits for (`deadlines.limits_of`)."""
    filter: Filter | None
    log_limit: LogLimit
    refusals: Refusals
    watch: Watch
    ending: Reason | None = None
    """Why no more clients are accepted; None: they are. RELOAD may still become STOP."""
