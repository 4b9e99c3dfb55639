"""From the configuration and the command line to the options of a plan. The command line overrides the
configuration."""

from __future__ import annotations

import pwd
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from proxsmtp_tp.config.addresses import InetAddress
from proxsmtp_tp.config.settings import TransparentProxy
from proxsmtp_tp.gateway.plan import Existing, Fail, Forward, Method, Mode, Options, PlanError

if TYPE_CHECKING:
    from proxsmtp_tp.config.settings import Settings


def options_from(settings: Settings, overrides: dict[str, Any] | None = None) -> Options:
    """The options from `settings`, with some fields of `Settings` replaced. Raises PlanError."""
    given = {name: value for name, value in (overrides or {}).items() if value is not None}
    merged = replace(settings, **given)
    port = merged.intercept_port
    if port is None:
        raise PlanError("the daemon listens on no TCP port: give Listen a port, or RuleListenPort")
    return Options(
        instance=merged.instance,
        method=Method(merged.rule_method.value),
        mode=Mode(merged.rule_mode.value),
        interfaces=merged.rule_interface,
        sources=merged.rule_source,
        except_sources=merged.rule_except_source,
        except_destinations=merged.rule_except_destination,
        ports=merged.rule_port,
        listen_port=port,
        fail=Fail(merged.rule_fail.value),
        forward=Forward(merged.rule_forward.value),
        existing=Existing(merged.rule_existing.value),
        local=merged.rule_local,
        daemon_uid=user_id(merged.user) if merged.user else None,
        full=merged.transparent_proxy is TransparentProxy.FULL,
        refuse_failed=merged.refuse_unreachable,
        out_port=merged.out_address.port if isinstance(merged.out_address, InetAddress) else None,
    )


def user_id(user: str) -> int:
    """The number of a user, by name or number. Raises PlanError."""
    if user.isascii() and user.isdigit():
        return int(user)
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        raise PlanError(f"there is no user {user}: adduser --system {user}") from None
