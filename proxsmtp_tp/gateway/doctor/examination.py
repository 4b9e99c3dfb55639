"""Runs every step, in the order in which a packet travels. A step that cannot be examined is a finding, too."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

from proxsmtp_tp.gateway.doctor import daemon, firewall, forwarding, host, rules
from proxsmtp_tp.gateway.doctor.findings import Finding, Look, Setup
from proxsmtp_tp.gateway.errors import GatewayError
from proxsmtp_tp.gateway.plan import Plan, PlanError
from proxsmtp_tp.gateway.survey import choose_plan

if TYPE_CHECKING:
    from collections.abc import Iterator

    from proxsmtp_tp.config.settings import Settings
    from proxsmtp_tp.gateway.plan import Options
    from proxsmtp_tp.gateway.state import Store

LOOKS: tuple[Look, ...] = (
    host.look_at_interfaces,
    host.look_at_forwarding,
    host.look_at_reverse_paths,
    host.look_at_ipv6,
    host.look_at_bridges,
    host.look_at_connection_tracking,
    rules.look_at_rules,
    rules.look_at_existing,
    rules.look_at_delivery,
    rules.look_at_heartbeat,
    firewall.look_at_firewall,
    forwarding.look_at_forwarding_policy,
    daemon.look_at_listeners,
    daemon.look_at_privileges,
    daemon.look_at_descriptors,
    daemon.look_at_temp_directory,
    daemon.look_at_filter,
)


def examine(setup: Setup) -> Iterator[Finding]:
    """All findings."""
    for look in LOOKS:
        try:
            yield from look(setup)
        except (GatewayError, PlanError, OSError, subprocess.SubprocessError) as error:
            yield Finding(
                look.__name__.removeprefix("look_at_").replace("_", " "), False, f"cannot be looked at: {error}"
            )


def setup_of(settings: Settings, config: str | None, options: Options, store: Store) -> Setup:
    """What to examine: the plan of the configuration; if that names no interfaces, the installed plan."""
    return Setup(settings, config, _plan(options, store), store)


def _plan(options: Options, store: Store) -> Plan:
    states = store.read_all()
    state = states.get(options.instance)
    if state and not options.interfaces and not options.local:
        return replace(state.plan, refuse_all=False)
    return choose_plan(options, states)[0]
