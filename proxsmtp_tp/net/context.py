"""What all connections of one worker share: the configuration, the filter, the table of all workers.

Made by `proxy`, used by `connection` and `upstream`, which know nothing else about their worker.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from proxsmtp_tp.config.settings import Settings
from proxsmtp_tp.filters import stderr
from proxsmtp_tp.filters.interface import Filter
from proxsmtp_tp.filters.verdict import Action
from proxsmtp_tp.net.admission import Admission
from proxsmtp_tp.net.client_limits import WorkerLimits
from proxsmtp_tp.net.dialling import Waiting
from proxsmtp_tp.net.log_limit import LogLimit
from proxsmtp_tp.net.refusals import Refusals
from proxsmtp_tp.net.refused_destinations import RecentAnswers
from proxsmtp_tp.net.source_port import PortSettings
from proxsmtp_tp.net.tls_worker import WorkerTls
from proxsmtp_tp.net.tracing import Tracing
from proxsmtp_tp.net.watching import Watch
from proxsmtp_tp.session.options import Options
from proxsmtp_tp.session.state import Reason, Wait
from proxsmtp_tp.telemetry.event_log import EventLog
from proxsmtp_tp.telemetry.forms import Form
from proxsmtp_tp.telemetry.metrics import WorkerMetrics, unread_row
from proxsmtp_tp.telemetry.recent_messages import WorkerMessages
from proxsmtp_tp.telemetry.sessions import WorkerSessions
from proxsmtp_tp.telemetry.switches import Switch
from proxsmtp_tp.telemetry.unreachable import WorkerUnreachable

if TYPE_CHECKING:
    from proxsmtp_tp.filters.verdict import Verdict


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
    tracing: Tracing
    client_limits: WorkerLimits
    sessions: WorkerSessions
    form: Form
    events: EventLog | None
    metrics: WorkerMetrics
    waiting: Waiting
    recent: WorkerMessages
    unreachable: WorkerUnreachable
    unmeasured: WorkerMetrics = field(default_factory=unread_row)
    """In place of `metrics` for sessions that are not counted (`doctor_sessions`)."""
    destinations: RecentAnswers = field(default_factory=RecentAnswers)
    source_ports: PortSettings = field(default_factory=PortSettings)
    tls: WorkerTls | None = None
    """None: there are no Tls lines."""
    ticks: Callable[[], float] = field(init=False)
    """`loop.time`. This and `bypass` are for sessions: a method that each of them binds takes 80 octets."""
    bypass: Callable[[], bool] = field(init=False)
    """`bypassed`."""
    ending: Reason | None = None
    """Why no more clients are accepted; None: they are accepted. RELOAD may later become STOP."""

    def __post_init__(self) -> None:
        self.ticks = self.loop.time
        self.bypass = self.bypassed

    def bypassed(self) -> bool:
        """Whether mail passes unjudged now (`service.bypass`)."""
        return self.admission.switches[Switch.BYPASS_UNTIL] > time.monotonic_ns()

    def remember(self, client: str, verdict: Verdict) -> None:
        """Show `status` and `doctor` how the message of a client was judged."""
        remember(self.admission, self.worker, client, verdict)


def remember(admission: Admission, worker: int, client: str, verdict: Verdict) -> None:
    """Show `status` and `doctor` how the message of a client was judged in this worker."""
    if verdict.failure:
        admission.recent_verdicts.failed(worker, client, verdict.failure)
        return
    if verdict.action is Action.PASS:
        admission.recent_verdicts.worked(worker)
        return
    reason = verdict.detail if not verdict.said else f"{verdict.detail}: {verdict.said}"
    coded = stderr.parse(verdict.said.encode("utf-8", "replace")).code is not None
    admission.recent_verdicts.failed(worker, client, reason, coded=coded)
