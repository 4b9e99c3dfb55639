"""The result of the last comparison by `watch`: a file beside the state of the rules, for `status`.

Only root writes it; everybody may read it.
"""

from __future__ import annotations

import json
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from proxsmtp_tp.config.reader import printable

if TYPE_CHECKING:
    from pathlib import Path

    from proxsmtp_tp.gateway.state import Store

STALE = 150.0
"""Seconds after which a record is too old: `watch` compares each minute."""
_SHOWN = 5  # differences; check-rules shows all


@dataclass(frozen=True, slots=True)
class Record:
    """The result of one comparison. Times are seconds since 1970; 0: never."""

    state: str
    """in place, absent, drifted, refusing mail."""
    differences: tuple[str, ...]
    at: float
    restored: float = 0.0
    """When `watch` last put rules back."""


def path_of(instance: str, store: Store) -> Path:
    """The file."""
    path = store.path(instance)
    return path.with_name(f"{path.name}.seen")


def write(instance: str, store: Store, record: Record) -> None:
    """Replace the file. Raises OSError."""
    path = path_of(instance, store)
    path.parent.mkdir(mode=0o755, exist_ok=True)
    beside = path.with_name(f".{path.name}.new")
    beside.write_text(json.dumps(asdict(record)))
    beside.chmod(0o644)
    beside.replace(path)


def forget(instance: str, store: Store) -> None:
    """Delete the file: `watch` ends."""
    with suppress(OSError):
        path_of(instance, store).unlink()
    with suppress(OSError):  # something is installed
        store.directory.rmdir()


def read(instance: str, store: Store) -> Record | None:
    """The record. None: no process watches the rules of this instance now."""
    try:
        data = json.loads(path_of(instance, store).read_text())
        found = Record(str(data["state"]), tuple(map(str, data["differences"])), float(data["at"]), data["restored"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if 0 <= time.time() - found.at <= STALE else None


def describe(record: Record) -> tuple[list[str], bool]:
    """Lines for people, and whether something is wrong."""
    seconds = max(0.0, time.time() - record.at)
    restored = ""
    if record.restored:
        restored = f"; put back at {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(record.restored))}"
    lines = [f"rules: {record.state} (seen {seconds:.0f} s ago{restored})"]
    lines += [f"  {printable(difference)}" for difference in record.differences[:_SHOWN]]
    return lines, record.state != "in place"
