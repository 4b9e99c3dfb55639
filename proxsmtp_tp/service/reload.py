"""What a reload needs before its workers are started: the configuration, read again, and its listening sockets."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from proxsmtp_tp.config.reader import ConfigError
from proxsmtp_tp.config.settings import WORKERS_MAX, Settings, TransparentProxy
from proxsmtp_tp.net.listening import ListenError, Listeners, renew_listeners
from proxsmtp_tp.service.privileges import has_net_raw

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxsmtp_tp.config.reader import Configuration

log = logging.getLogger(__name__)

FIXED = {
    "user": "User",
    "pid_file": "PidFile",
    "instance": "Instance",
    "client_table_size": "ClientTableSize",
    "tls_ca": "TlsCa",
    "tls_untrusted_ca": "TlsUntrustedCa",
}
"""Directives that a reload does not change: they need privileges, are names that others use, size shared memory, or are
keys that only root may read."""


class ReloadError(Exception):
    """The new configuration cannot be used without a restart."""


class NotReadError(Exception):
    """The configuration cannot be used. `problems`: one line each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__(*problems)
        self.problems = problems


@dataclass(frozen=True, slots=True)
class NewConfiguration:
    """`settings` are those for the new workers; `read` those of the file.

    They differ in what needs a restart; `needs_restart` has the names of these directives.
    """

    settings: Settings
    read: Settings
    needs_restart: list[str]
    listeners: Listeners


def with_workers(settings: Settings) -> Settings:
    """The settings with a number of workers: unless configured, one for each core that we may use."""
    return settings if settings.workers else replace(settings, workers=min(len(os.sched_getaffinity(0)), WORKERS_MAX))


def read_again(load: Callable[[], Configuration], old: Settings, listeners: Listeners, rows: int) -> NewConfiguration:
    """The configuration that `load` reads. `old` and `listeners` are in use; `rows`: free for new workers.

    Raises NotReadError; nothing has changed then.
    """
    try:
        configuration = load()
        settings, needs_restart = acceptable(configuration.settings, old, rows)
        renewed = renew_listeners(settings, listeners)
    except ConfigError as error:
        raise NotReadError(error.lines()) from None
    except (ListenError, ReloadError) as error:
        raise NotReadError([str(error)]) from None
    for warning in configuration.warnings:
        log.warning("%s", warning)
    for name in needs_restart:
        log.warning("%s: the change needs a restart of the daemon; the other changes are in force", name)
    return NewConfiguration(settings, configuration.settings, needs_restart, renewed)


def acceptable(settings: Settings, old: Settings, rows: int) -> tuple[Settings, list[str]]:
    """The new settings without the changes that need a restart, and the names of those. Raises ReloadError."""
    settings = with_workers(settings)
    if rows < settings.workers:
        raise ReloadError("workers of earlier reloads still drain: try again in DrainTimeOut seconds")
    if settings.transparent_proxy is TransparentProxy.FULL and not has_net_raw():
        raise ReloadError("TransparentProxy full needs CAP_NET_RAW, which was given up: restart the daemon")
    changed = {field: name for field, name in FIXED.items() if getattr(settings, field) != getattr(old, field)}
    return replace(settings, **{field: getattr(old, field) for field in changed}), list(changed.values())
