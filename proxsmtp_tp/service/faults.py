"""Faults that the status of an instance shows: one line for each, with the fix. Pure: made from the daemon's answer."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

LONG_WAIT = 10.0
"""Seconds that a message may wait for the filter before it is a fault. Clients wait for ten minutes (RFC 5321 section
4.5.3.2.6), but after seconds it is clear that more messages come than the filter can judge."""


def faults(answer: dict[str, Any]) -> list[str]:
    """One line for each fault, with the fix."""
    return [
        *_configuration(answer), *_rules(answer), *_workers(answer), *_places(answer), *_servers(answer)
    ]  # fmt: skip


def _configuration(answer: dict[str, Any]) -> Iterator[str]:
    """What `in_force.describe` calls wrong."""
    known = answer.get("configuration") or {}
    if known.get("file_state") == "wrong":
        yield f"the configuration file is wrong: `proxsmtp-tp check-config {_whose(answer)}` says where"
    elif known.get("file_state") == "changed":
        yield f"the configuration file has changed, and is not in force: `proxsmtp-tp reload {_whose(answer)}`"
    elif (known.get("reload") or {}).get("state") == "failed":
        yield f"the last reload failed: `proxsmtp-tp reload {_whose(answer)}` tries again"
    if needed := known.get("needs_restart"):
        yield f"{', '.join(needed)} changed in the file, which needs a restart of the daemon"


def _whose(answer: dict[str, Any]) -> str:
    """The option of our commands. The file may be anywhere; --instance means one in /etc/proxsmtp-tp."""
    file = (answer.get("configuration") or {}).get("file")
    return f"-f {shlex.quote(file)}" if file else f"--instance {answer.get('instance', 'NAME')}"


def _rules(answer: dict[str, Any]) -> Iterator[str]:
    state = (answer.get("rules") or {}).get("state")
    if state in {"absent", "drifted"}:
        what = "are not in place: mail is not intercepted" if state == "absent" else "differ from those wanted"
        yield f"the rules {what}: `proxsmtp-tp install-rules {_whose(answer)}`"
    elif state == "refusing mail":
        yield f"the rules refuse all mail: `proxsmtp-tp check-rules {_whose(answer)}` says why"


def _workers(answer: dict[str, Any]) -> Iterator[str]:
    workers = answer.get("workers")
    if workers is not None and not any(worker.get("phase") == "running" for worker in workers):
        doing = "the daemon stops" if answer.get("stopping") else "no worker accepts connections"
        yield f"{doing}: `journalctl -u proxsmtp-tp@{answer.get('instance', 'NAME')}` says why"


def _places(answer: dict[str, Any]) -> Iterator[str]:
    used, most = answer.get("connections", 0), answer.get("max_connections", 1)
    if used >= most:
        yield f"all {most} connections are taken, clients get 421: raise MaxConnections, or see `proxsmtp-tp sessions`"
    filters = answer.get("filters") or {}
    if filters.get("waiting") and filters.get("oldest_wait", 0) >= LONG_WAIT:
        yield (
            f"{filters['waiting']} messages wait for the filter, the oldest for {filters['oldest_wait']:.0f} s, while"
            f" {filters['limit']} run: make the filter faster, or raise FilterProcesses, or max= of a Filter line"
        )


def _servers(answer: dict[str, Any]) -> Iterator[str]:
    for down in (answer.get("servers_down") or [])[:5]:
        yield (
            f"the server {down['server']} cannot be reached for {down['seconds']} s ({down['failures']} connections):"
            " see that it runs, and that this host has a route to it"
        )
