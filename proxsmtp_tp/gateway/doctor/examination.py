"""Runs every step, in the order in which a packet travels. A step that cannot be examined is a finding, too."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from proxsmtp_tp.gateway import survey
from proxsmtp_tp.gateway.doctor import (
    daemon_view,
    filter_view,
    firewall,
    forwarding,
    host,
    listeners,
    load,
    probe,
    rules,
    servers,
)
from proxsmtp_tp.gateway.doctor.findings import Finding, Look, Setup, unseen
from proxsmtp_tp.gateway.doctor.steps import Step
from proxsmtp_tp.gateway.errors import GatewayError
from proxsmtp_tp.gateway.options import options_from
from proxsmtp_tp.gateway.plan import Plan, make_plan
from proxsmtp_tp.gateway.survey import choose_plan

if TYPE_CHECKING:
    from collections.abc import Iterator

    from proxsmtp_tp.config.settings import Settings
    from proxsmtp_tp.gateway.doctor.steps import Waiting
    from proxsmtp_tp.gateway.plan import Options
    from proxsmtp_tp.gateway.state import Store


class _StepRow(NamedTuple):
    """One step. `rules`: only if rules redirect connections to the daemon. `root`: only root can examine it."""

    look: Look
    rules: bool = False
    root: bool = False

    @property
    def name(self) -> str:
        """As a finding shows it."""
        return self.look.__name__.removeprefix("look_at_").replace("_", " ")

    def findings(self, setup: Setup) -> Iterator[Finding]:
        """Look."""
        if self.root and not is_root():
            yield unseen(self.name, "only root can look at it")
            return
        yield from self.look(setup)


STEPS = (
    _StepRow(host.look_at_interfaces, rules=True),
    _StepRow(host.look_at_forwarding, rules=True),
    _StepRow(host.look_at_reverse_paths, rules=True),
    _StepRow(host.look_at_ipv6, rules=True),
    _StepRow(host.look_at_bridges, rules=True),
    _StepRow(host.look_at_connection_tracking, rules=True, root=True),
    _StepRow(rules.look_at_rules, rules=True, root=True),
    _StepRow(rules.look_at_overlap, rules=True, root=True),
    _StepRow(rules.look_at_existing, rules=True, root=True),
    _StepRow(rules.look_at_delivery, rules=True, root=True),
    _StepRow(rules.look_at_heartbeat, rules=True, root=True),
    _StepRow(firewall.look_at_firewall, rules=True, root=True),
    _StepRow(forwarding.look_at_forwarding_policy, rules=True, root=True),
    _StepRow(listeners.look_at_unit),
    _StepRow(listeners.look_at_listeners),
    _StepRow(listeners.look_at_privileges, root=True),
    _StepRow(listeners.look_at_descriptors, root=True),
    _StepRow(daemon_view.look_at_temp_directory, root=True),
    _StepRow(filter_view.look_at_filter, root=True),
    _StepRow(daemon_view.look_at_bypass),
    _StepRow(load.look_at_load),
    _StepRow(servers.look_at_servers),
    _StepRow(servers.look_at_access),
)
"""In the order in which they are shown."""
PROBE_SECONDS = 60.0
"""Seconds for a whole probe; each of its mails has shorter limits."""

_NO_PORT = 25
"""In the plan of a daemon without a port: nothing is looked for there."""


def examine(setup: Setup, waiting: Waiting | None = None) -> Iterator[Finding]:
    """All findings, in order; the steps run at the same time. `waiting` is called for steps that take long."""
    rules_wanted = _has_rules(setup)
    steps = [
        Step(row.name, partial(row.findings, setup), setup.step_seconds)
        for row in STEPS
        if rules_wanted or not row.rules
    ]
    for step in steps:
        yield from step.findings(waiting)


def _has_rules(setup: Setup) -> bool:
    """Whether rules are there, or should be."""
    return setup.settings.transparent or setup.intercepts or setup.store.read(setup.plan.options.instance) is not None


def send_probe(setup: Setup, waiting: Waiting | None = None) -> Iterator[Finding]:
    """The findings of a probe."""
    if not is_root():
        yield unseen("probe", "only root can send it")
        return
    if not _has_rules(setup):
        yield Finding("probe", True, "there are no rules to send it through; the steps server and access tell the rest")
        return
    yield from Step("probe", partial(probe.probe, setup), PROBE_SECONDS).findings(waiting)


def is_root() -> bool:
    """Whether this process may look at everything."""
    with suppress(GatewayError):
        survey.require_root()
        return True
    return False


def options_of(settings: Settings) -> Options:
    """What the configuration asks for. A daemon that listens on unix sockets alone has no rules, and needs no port.

    Raises PlanError.
    """
    if settings.intercept_port is None and not (settings.transparent or settings.rule_interface or settings.rule_local):
        settings = replace(settings, rule_listen_port=_NO_PORT)
    return options_from(settings)


def setup_of(settings: Settings, config: str, options: Options, store: Store) -> Setup:
    """What to examine: the plan of the configuration; if that names no interfaces, the installed plan."""
    return Setup(settings, config, _plan(options, store), store)


def _plan(options: Options, store: Store) -> Plan:
    states = store.read_all()
    state = states.get(options.instance)
    if state and not options.interfaces and not options.local:
        return replace(state.plan, refuse_all=False)
    if not is_root():
        return make_plan(options, state.plan.numbers.slot if state else None)
    return choose_plan(options, states)[0]
