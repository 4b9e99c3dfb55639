"""A plan as text: what an install would load, and what it would change on the host now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxsmtp_tp.gateway import check
from proxsmtp_tp.gateway.errors import GatewayError
from proxsmtp_tp.gateway.firewall import METHODS

if TYPE_CHECKING:
    from proxsmtp_tp.gateway.plan import Plan


def describe(plan: Plan) -> str:
    """Everything that install-rules would put on the host."""
    rules, routes = check.wanted_routing(plan)
    commands = [str(item).replace(" rule ", " rule add ", 1) for item in sorted(rules)]
    commands += [str(item).replace(" route ", " route add ", 1) for item in sorted(routes)]
    options = plan.options
    kind = f"method {options.method.value}, mode {options.mode.value}, fail {options.fail.value}"
    lines = [
        f"# instance {options.instance}, {kind}",
        "# system settings: none is changed",
        "# policy routing:" + ("" if commands else " none"),
        *(f"ip {command}" for command in commands),
        METHODS[plan.options.method].render(plan).rstrip(),
    ]
    return "\n".join(lines)


def changes(plan: Plan) -> str:
    """What an install would change now, one line each, as comments."""
    try:
        finding = check.examine(plan)
    except GatewayError as error:
        return f"# now: unknown, {error}"
    if finding.in_place:
        return "# now: everything is in place, nothing would be changed"
    if finding.absent:
        return "# now: nothing of it is there, all of it would be added"
    return "\n".join(["# now: these differences would be fixed:", *(f"#   {line}" for line in finding.differences)])
