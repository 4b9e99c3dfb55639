"""A small result, as a run of the bench makes it."""

from __future__ import annotations

from bench import plan, tls
from bench.latency import LatencySample, Times
from bench.measuring import Failure, Sample
from bench.processes import Cpu
from bench.result import About, Memory, Result

ABOUT = About(
    processor="Example 3000", cores=2, kernel="6.1.0", python="3.11.2", load_before=0.1, commit="0123456789",
    dirty=False, date="2026-11-28T16:20:00+00:00", versions={"haproxy": "2.6", "proxsmtp-tp": "2.1.0"},
    options={"rounds": 3, "seconds": 1.5},
)  # fmt: skip


def samples(subject: str, load: str, *rates: float, cpu: float = 100e-6, judging: float = 0.0) -> list[Sample]:
    """One of 1,000 messages for each rate. CPU time in seconds of a message, a fourth of it in the kernel."""
    spent, judged = (Cpu(each * 750, each * 250) for each in (cpu, judging))
    return [Sample(subject, load, at, 1000, 1000 / rate, spent, judged) for at, rate in enumerate(rates)]


def result() -> Result:
    """Of haproxy, this project and proxsmtpd 1.10."""
    cat = plan.filtered(plan.PURE, plan.CAT)
    clear, encrypted = (f"{plan.PURE}, {how}" for how in (tls.CLEAR, tls.TLS))
    return Result(
        ABOUT,
        samples=[
            *samples(plan.HAPROXY, plan.MANY, 1000, 980, 1050, cpu=40e-6),
            *samples(plan.PURE, plan.MANY, 900, 910, 920, cpu=60e-6),
            *samples(cat, plan.MANY, 100, 101, 102, judging=1000e-6),
            *samples(plan.SPAWNING, plan.COMMANDS, 200, 200, 200, cpu=0, judging=900e-6),
            *samples(plan.ORIGINAL, plan.MANY, 30),
            *samples(tls.HAPROXY_TLS, tls.NEW, 150, cpu=1250e-6),
            *samples(encrypted, tls.NEW, 80, cpu=4e-3),
            *samples(encrypted, tls.REUSED, 800),
            *samples(clear, tls.REUSED, 1200),
        ],
        latencies=[
            LatencySample(plan.PURE, "10 %", 0, 90.0, 135, Times(300.0, 900.0, 1000.0), Times(100.0, 200.0, 300.0)),
            LatencySample(
                plan.ORIGINAL, "10 %", 0, 3.0, 20, Times(44000.0, 46000.0, 46000.0), Times(100.0, 200.0, 300.0)
            ),
        ],
        highest={plan.PURE: 912.0, plan.ORIGINAL: 31.0},
        memories=[Memory(encrypted, 2, 40000, 55.5)],
        failures=[Failure(plan.ORIGINAL, plan.MANY, "454 later")],
    )
