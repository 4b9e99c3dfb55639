"""Lends the keys of our CAs to a daemon that runs as one user from its start: its unit's, and so its filters' user.

The unit calls this as root before it starts the daemon (ExecStartPre=+). Root makes what is missing, opens the keys,
and gives the descriptors to systemd, which passes them on to the daemon only (sd_pid_notify_with_fds(3), FDSTORE=1;
sd_listen_fds(3)). The files stay root's: a filter cannot open them, and the daemon is not dumpable, so a filter cannot
reach its descriptors by /proc.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from proxsmtp_tp.service.key_files import KeyFileError, ca_files, open_ca
from proxsmtp_tp.service.readiness import LENT
from proxsmtp_tp.service.tls_keys import needs_ca, prepare_cas

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from proxsmtp_tp.config.settings import Settings
    from proxsmtp_tp.service.readiness import Notifier

SECONDS: Final = 10.0
"""For systemd to read three messages, on a busy host."""


def lend(settings: Settings, kept: Path, owners: Collection[int], notifier: Notifier) -> None:
    """Give the keys to the service manager. `kept` is the state directory; `owners`: the user of the unit, to whom keys
    of TlsCa may belong. Raises KeyFileError.
    """
    if not needs_ca(settings):
        return
    files = ca_files(settings, kept)
    prepare_cas([each for each in files if each.ours])
    for each in files:
        _certificate, key = open_ca(each, () if each.ours else owners)
        try:
            notifier.remove(LENT[each.trusted])  # of a daemon that has not taken it
            notifier.store(LENT[each.trusted], key)
        finally:
            os.close(key)
    if not notifier.barrier(SECONDS):
        raise KeyFileError("systemd does not take the keys: this command is for ExecStartPre=+ of the unit")


def take(notifier: Notifier) -> dict[bool, int]:
    """The descriptors of keys that this daemon was given, by whether clients trust the CA. The manager forgets them:
    a daemon of an earlier release could not use them.
    """
    for name in notifier.lent:
        notifier.remove(name)
    return {trusted: notifier.lent[name] for trusted, name in LENT.items() if name in notifier.lent}
