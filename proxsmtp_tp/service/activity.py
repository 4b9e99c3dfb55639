"""What `status` shows of the work of all workers: sessions, filters, totals, the last error, servers that are down."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from proxsmtp_tp.net.admission import WORKERS_MAX
from proxsmtp_tp.telemetry.metrics import by_name
from proxsmtp_tp.telemetry.sessions import SessionPhase

if TYPE_CHECKING:
    from proxsmtp_tp.config.settings import Settings
    from proxsmtp_tp.net.admission import Admission


def activity(admission: Admission, settings: Settings) -> dict[str, Any]:
    """A JSON object. Times in seconds; `time` of the last error since the epoch."""
    phases, oldest = admission.sessions.phases()
    return {
        "sessions": {phase.name.lower(): number for phase, number in phases.items()},
        "filters": {
            "configured": settings.filter_command is not None or bool(settings.filter),
            "running": phases[SessionPhase.FILTER],
            "limit": sum(line.max for line in settings.filter) or settings.filter_processes,
            "waiting": phases[SessionPhase.WAITING],
            "oldest_wait": round(oldest, 1),
        },
        "totals": by_name(admission.metrics.totals()),
        "servers_down": admission.unreachable.report(WORKERS_MAX),
        "last_error": admission.last_error.report(),
    }


def summary(report: dict[str, Any]) -> str:
    """The same for the line `Status:` of systemctl: numbers that fit into 80 columns."""
    filters = report["filters"]
    text = f"{report['connections']} of {report['max_connections']} connections"
    if filters["configured"]:
        text += f", {filters['running']} messages at filters, {filters['waiting']} waiting"
    return f"{text}, {sum(report['totals']['messages_total'].values())} messages since the start"
