"""The result of a run as a file: where, what and when was measured, and each sample of each round (JSON)."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import os
import platform
import shutil
import subprocess
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.latency import LatencySample, Times
from bench.measuring import Failure, Measured, Sample
from bench.processes import Cpu
from bench.subjects import ORIGINAL, TREE

SCHEMA = 1
"""The version of the file's format. With another number, fields have another meaning."""


class ResultError(Exception):
    """A file that is not such a result. The text says where."""


@dataclass(frozen=True, slots=True)
class Memory:
    """KiB of a subject that has no session, and how much it grows with each session that waits after EHLO."""

    subject: str
    processes: int
    base_kib: int
    session_kib: float


@dataclass(frozen=True, slots=True)
class About:
    """Where, what and when."""

    processor: str
    cores: int
    kernel: str
    python: str
    load_before: float
    commit: str
    dirty: bool
    """Whether files differ from the commit."""
    date: str
    """When the run began, in UTC (ISO 8601)."""
    versions: dict[str, str]
    """Versions of the programs that were measured or used."""
    options: dict[str, Any]
    """Rounds, seconds of a sample, and so on."""


@dataclass(slots=True)
class Result:
    """A run."""

    about: About
    samples: list[Sample] = field(default_factory=list)
    latencies: list[LatencySample] = field(default_factory=list)
    highest: dict[str, float] = field(default_factory=dict)
    """By subject: mails a second that the shares of the latency table are parts of."""
    memories: list[Memory] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    def add(self, found: Measured) -> None:
        """Add what a part of the run has measured."""
        self.samples += found.samples
        self.failures += found.failures

    def write(self, path: Path) -> None:
        """Write it to a file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"schema": SCHEMA, **dataclasses.asdict(self)}, indent=1) + "\n")


def read(path: Path) -> Result:
    """Read it from a file. Raises ResultError."""
    try:
        whole = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ResultError(f"{path}: {error}") from error
    if not isinstance(whole, dict) or whole.get("schema") != SCHEMA:
        raise ResultError(f"{path}: not a result of schema {SCHEMA}: run the bench again")
    del whole["schema"]
    try:
        found: Result = _made(Result, whole)
    except (TypeError, KeyError, AttributeError) as error:
        raise ResultError(f"{path}: {error}") from error
    return found


_PARTS: dict[str, Any] = {
    "about": About, "samples": Sample, "latencies": LatencySample, "memories": Memory, "failures": Failure,
    "cpu": Cpu, "judging": Cpu, "through": Times, "direct": Times,
}  # fmt: skip
"""Fields that are objects, or lists of them."""


def _made(kind: Any, found: dict[str, Any]) -> Any:
    """Make an object of its fields: all of them, and no others. Raises TypeError."""
    wanted = {each.name for each in dataclasses.fields(kind)}
    if wanted != set(found):
        raise TypeError(
            f"{kind.__name__}: missing {sorted(wanted - set(found))}, unknown {sorted(set(found) - wanted)}"
        )
    fields = {}
    for name, value in found.items():
        part = _PARTS.get(name)
        if part is not None and isinstance(value, list):
            fields[name] = [_made(part, each) for each in value]
        else:
            fields[name] = _made(part, value) if part is not None else value
    return kind(**fields)


def about(options: dict[str, Any], repository: Path = TREE) -> About:
    """Where, what and when, now."""
    model = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    changed = _said("git", "-C", str(repository), "status", "--porcelain", "--untracked-files=no")
    return About(
        processor=model[0].partition(":")[2].strip() if model else platform.machine(),
        cores=os.cpu_count() or 1,
        kernel=platform.release(),
        python=platform.python_version(),
        load_before=os.getloadavg()[0],
        commit=commit("HEAD", repository),
        dirty=bool(changed),
        date=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        versions=versions(),
        options=options,
    )


def commit(revision: str, repository: Path) -> str:
    """Its short name; "unknown" outside a clone."""
    return _said("git", "-C", str(repository), "rev-parse", "--short=10", revision) or "unknown"


def versions() -> dict[str, str]:
    """Versions of what is measured, and of what measures."""
    found = {"uvloop": version("uvloop"), "proxsmtp-tp": version("proxsmtp-tp")}
    if shutil.which("haproxy"):
        found["haproxy"] = _word(_said("haproxy", "-v"), 2)
    if shutil.which("postconf"):
        found["postfix"] = _said("postconf", "-d", "-h", "mail_version")
    if ORIGINAL.exists():
        found["proxsmtpd"] = _said("dpkg-query", "-W", "-f", "${Version}", "proxsmtp")
    return found


def _word(text: str, at: int) -> str:
    words = text.split()
    return words[at] if len(words) > at else ""


def _said(*command: str) -> str:
    """Standard output of a command; "" if it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
