"""Restarts and reloads of units that run with another version or configuration, although no unit file has changed.

They refuse no connection (proxsmtp-tp@.service), so install-service does not ask first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from proxsmtp_tp.cli.service_units import wants_rules
from proxsmtp_tp.config.settings import RuleMode

if TYPE_CHECKING:
    from proxsmtp_tp.config.settings import Settings


@dataclass(frozen=True, slots=True)
class Action:
    """`systemctl VERB UNIT`, and why."""

    verb: str
    unit: str
    why: str


def actions(name: str, settings: Settings) -> list[Action]:
    """The actions for one instance whose units run, in order."""
    daemon = _daemon(name, settings)
    rules = _rules(name, settings) if wants_rules(settings) else []
    # A transparent listener accepts connections of TPROXY and of REDIRECT; any other listener only those of REDIRECT.
    return [*daemon, *rules] if settings.rule_mode is RuleMode.TPROXY else [*rules, *daemon]


def why_restart(status: dict[str, Any], version: str) -> str:
    """The reason for a restart; empty: none. `status` is that of the daemon, `version` that of this program."""
    if status.get("version") != version:
        return f"it runs version {status.get('version')}, and {version} is installed"
    needed = (status.get("configuration") or {}).get("needs_restart") or []
    return f"{', '.join(map(str, needed))} changed" if needed else ""


def _daemon(name: str, settings: Settings) -> list[Action]:
    from proxsmtp_tp.service.status import find_sockets, instance_of, read_status  # noqa: PLC0415  (not for --root)
    from proxsmtp_tp.service.version import VERSION  # noqa: PLC0415

    unit = f"proxsmtp-tp@{name}.service"
    answers = (read_status(path) for path in find_sockets() if instance_of(path) == settings.instance)
    status = next((answer for answer in answers if answer is not None), None)
    if status is None:
        return []
    if why := why_restart(status, VERSION):
        return [Action("restart", unit, why)]
    if (status.get("configuration") or {}).get("file_state") == "changed":
        return [Action("reload", unit, "its configuration has changed")]
    return []


def _rules(name: str, settings: Settings) -> list[Action]:
    from proxsmtp_tp.gateway.check import look  # noqa: PLC0415 - netlink is loaded only where there are rules
    from proxsmtp_tp.gateway.errors import GatewayError  # noqa: PLC0415
    from proxsmtp_tp.gateway.options import options_from  # noqa: PLC0415
    from proxsmtp_tp.gateway.plan import PlanError  # noqa: PLC0415
    from proxsmtp_tp.gateway.state import Store  # noqa: PLC0415

    unit = f"proxsmtp-tp-rules@{name}.service"
    try:
        finding, _, _ = look(options_from(settings), Store())
    except (GatewayError, PlanError, OSError):
        return [Action("reload", unit, "its rules cannot be compared")]  # the reload says why
    return [] if finding.in_place else [Action("reload", unit, f"its rules are {finding.word}")]
