"""From a plan to the text that nft loads: the file of the mode, unchanged, with its defines filled in.

Guarantees: pure; only the defines and the table's name differ from the file; only validated names, and numbers that
this module formats, are inserted. Raises ValueError if the file lacks a define or has one too many.

Source: nft(8), "Lexical conventions" and "Set syntax".
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from proxsmtp_tp.gateway.plan import HEARTBEAT_HOLD, UID_MAX, Existing, Fail, Mode, of_version

if TYPE_CHECKING:
    from collections.abc import Iterable

    from proxsmtp_tp.gateway.plan import Plan

TABLE_IN_FILE = "proxsmtp_example"
"""The table's name in the files, for people who load them by hand."""
ALIVE_SET = "alive"
"""The set whose elements enable interception; with fail open, heartbeats add them and they expire."""
EXPIRING_SETS = frozenset({ALIVE_SET, "failed4", "failed6", "failed_from4", "failed_from6"})
"""Sets to which the daemon's datagrams add elements with a timeout."""

UNFILTERED_SETS = ("unfiltered4", "unfiltered6")
"""The sets of unfiltered connections; packets add elements, which expire."""

_DEFINE = re.compile(r"^define ([A-Z0-9_]+) = .*$", re.MULTILINE)


def file_name(mode: Mode) -> str:
    """The file of a mode."""
    return f"{mode.value}.nft"


def render(plan: Plan, template: str) -> str:
    """The script that replaces our table by that of the plan, in one transaction."""
    values = defines(plan)
    seen: list[str] = []

    def fill(found: re.Match[str]) -> str:
        seen.append(found[1])
        return f"define {found[1]} = {values[found[1]]}"

    unknown = {match[1] for match in _DEFINE.finditer(template)} ^ values.keys()
    if unknown:
        raise ValueError(f"the nft file and this program differ in their defines: {', '.join(sorted(unknown))}")
    text = _DEFINE.sub(fill, template)
    if len(seen) != len(values):
        raise ValueError("the nft file defines a name twice")
    return re.sub(rf"\b{TABLE_IN_FILE}\b", plan.names.table, text)


def render_removal(table: str) -> str:
    """The script that removes our table, in one transaction; it also works if there is no table."""
    return f"table inet {table}\ndelete table inet {table}\n"


def defines(plan: Plan) -> dict[str, str]:
    """The values of the defines of the plan's file."""
    options, numbers = plan.options, plan.numbers
    closed = options.fail is Fail.CLOSED
    uid = options.daemon_uid
    found = {
        "INTERFACES": _set(f'"{name}"' for name in sorted(options.interfaces)),
        "PORTS": _set(sorted(options.ports)),
        "LISTEN_PORT": str(options.listen_port),
        "GUARDED_PORTS": _set(sorted(options.ports) if closed else []),
        "REFUSED_PORTS": _set(sorted(options.ports) if plan.refuse_all else []),
        "RESET_PORTS": _set(sorted(options.ports) if options.existing is Existing.RESET else []),
        "LOCAL_USERS": _set(_all_users_but(uid) if options.local else []),
        "ALIVE": _set(["ipv4", "ipv6"] if closed else [f"{v} timeout {HEARTBEAT_HOLD}s" for v in ("ipv4", "ipv6")]),
        "HEARTBEAT_PORTS": _set([] if closed else [options.listen_port]),
        "HEARTBEAT_USERS": _set([f"0-{UID_MAX}" if uid is None else uid]),
        "FAILED_PORTS": _set(sorted(options.ports) if options.refuse_failed else []),
        "FAILED_USERS": _set([uid or 0]),
        "UPSTREAM_PORTS": _set(plan.upstream_ports),
        "PROBE_INTERFACE": f'"{numbers.probe}"',
        "MARK": f"{numbers.mark:#x}",
    }
    for version in (4, 6):
        found[f"SOURCE{version}"] = _set(plan.sources(version))
        found[f"EXCEPT_SOURCE{version}"] = _set(of_version(options.except_sources, version))
        found[f"EXCEPT_DESTINATION{version}"] = _set(of_version(options.except_destinations, version))
    if options.mode is Mode.TPROXY:
        found["LOCAL_MARK"] = f"{numbers.local_mark:#x}"
    else:
        found["ZONE"] = str(numbers.zone)
    return found


def _set(elements: Iterable[object]) -> str:
    text = ", ".join(str(element) for element in elements)
    return f"{{ {text} }}" if text else "{ }"


def _all_users_but(uid: int | None) -> list[str]:
    if not uid:
        raise ValueError("the daemon has no user of its own")
    return [f"0-{uid - 1}", f"{uid + 1}-{UID_MAX}"]
