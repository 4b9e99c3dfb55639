"""Checks whether interception allows connections that the host's own forwarding policy forbids."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxsmtp_tp.gateway import forward
from proxsmtp_tp.gateway.doctor.findings import Finding, Setup
from proxsmtp_tp.gateway.plan import Forward

if TYPE_CHECKING:
    from collections.abc import Iterator


def look_at_forwarding_policy(setup: Setup) -> Iterator[Finding]:
    """Names each ruleset or policy rule that interception overrules."""
    step, overruled = "forwarding policy", setup.plan.options.forward is Forward.OVERRULE
    found = forward.closed(setup.plan)
    state = setup.store.read(setup.plan.options.instance)
    refused = state is not None and state.plan.refuse_all
    passes = "so all mail is refused" if refused else "but interception lets it pass"
    for item in found:
        what = "overruled, as RuleForward says" if overruled else f"{passes}: see RuleExceptSource, RuleForward"
        yield Finding(step, overruled, f"{item}; {what}")
    if not found:
        yield Finding(step, True, "what is intercepted would also be forwarded")
