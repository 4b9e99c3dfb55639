"""Whether interception opens connections that the host's own forwarding policy closes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxsmtp_tp.gateway import forward
from proxsmtp_tp.gateway.doctor.findings import Finding, Setup
from proxsmtp_tp.gateway.plan import Forward

if TYPE_CHECKING:
    from collections.abc import Iterator


def look_at_forwarding_policy(setup: Setup) -> Iterator[Finding]:
    """Each ruleset or policy rule that interception overrules."""
    step, overruled = "forwarding policy", setup.plan.options.forward is Forward.OVERRULE
    found = forward.closed(setup.plan)
    for item in found:
        what = "overruled, as RuleForward says" if overruled else "but interception lets it pass: see RuleExceptSource"
        yield Finding(step, overruled, f"{item}; {what}")
    if not found:
        yield Finding(step, True, "what is intercepted would also be forwarded")
