"""What the master shows: the values of `status`, and the metrics as text."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from proxsmtp_tp.service import syslog
from proxsmtp_tp.service.activity import activity
from proxsmtp_tp.service.version import VERSION
from proxsmtp_tp.service.worker import PULSE
from proxsmtp_tp.telemetry.exposition import exposition, gauges_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from proxsmtp_tp.net.admission import Admission
    from proxsmtp_tp.net.tls_rejections import TlsRejections
    from proxsmtp_tp.service.environment import Environment
    from proxsmtp_tp.service.generation import Generation

REJECTED_MAX = 20
"""Entries that `status` shows; `explain` knows of all."""


def report(
    environment: Environment, generations: Sequence[Generation], born: float, replaced: int, stopping: bool
) -> dict[str, Any]:
    """What `status` shows. Times in seconds.

    The first of the generations is in use. `born` is the start of the daemon, on the monotonic clock; `replaced` is the
    number of replaced workers.
    """
    now = time.monotonic()
    current, admission = generations[0], environment.admission
    counts = admission.counts()
    counters = admission.counters.totals()
    return {
        "instance": current.settings.instance,
        "version": VERSION,
        "pid": os.getpid(),
        "uptime": round(now - born),
        "stopping": stopping,
        "configuration": environment.in_force.report(),
        "listen": [str(endpoint) for endpoint in current.listeners],
        "connections": sum(counts),
        "max_connections": admission.limit,
        "replaced_workers": replaced,
        "counters": {counter.name.lower(): total for counter, total in counters.items()},
        "log": environment.levels.report() | {"syslog": any(syslog.in_use())},
        "locks": environment.locks.report(),
        "client_table": {
            "size": admission.clients.size,
            "entries": admission.clients.entries(),
            "evictions": admission.clients.evictions(),
        },
        "tls_rejected": rejected(admission.tls_rejections),
        "loop_lag": round(admission.loop_lag.largest(), 6),
        "bypass": environment.bypass.report(),
        "filter": admission.recent_verdicts.report(),
        **activity(admission, current.settings),
        "workers": _workers(generations, counts, now),
        **_minting(environment),
    }


def _minting(environment: Environment) -> dict[str, int | None]:
    """The process that makes certificates: None while it is started again; nothing where there is no CA."""
    minting = environment.tls.minting
    return {} if minting is None else {"minting": minting.pid}


def _workers(generations: Sequence[Generation], connections: Sequence[int], now: float) -> list[dict[str, Any]]:
    """`connections`: of each worker, by its row."""
    return [
        {
            "pid": worker.pid,
            "phase": generation.phase.value,
            "uptime": round(now - worker.born),
            "connections": connections[worker.row],
            "silent": round(worker.silent * PULSE),
        }
        for generation in generations
        for worker in generation.workers.values()
    ]


def rejected(table: TlsRejections) -> dict[str, Any]:
    """Clients that have rejected the gateway's certificate, so that their TLS passes (TlsRejected)."""
    entries = table.entries()
    shown = [entry._asdict() | {"seconds": round(left)} for entry, left in entries[:REJECTED_MAX]]
    return {"number": len(entries), "newest": shown}


def metrics(admission: Admission, status: dict[str, Any]) -> str:
    """What the metrics socket answers. `status`: what `report` returned."""
    return exposition(admission.metrics.totals(), admission.counters.totals(), gauges_of(status))
