"""Where the files are that a daemon keeps (StateDirectory of its unit), for a command that root types.

The unit proxsmtp-tp@NAME has the name of the configuration file, and so has its directory, whatever `Instance` says.
The daemon of a unit runs as one user from its start; the files belong to this user. Without a unit it is as in
`service.state_directory`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxsmtp_tp.cli.service_units import USER
from proxsmtp_tp.gateway.doctor.unit import unit_name
from proxsmtp_tp.service.privileges import PrivilegeError, look_up_user
from proxsmtp_tp.service.state_directory import state_directory

if TYPE_CHECKING:
    from pathlib import Path

    from proxsmtp_tp.config.settings import Settings


def name_of(path: str, settings: Settings) -> str:
    """The name of the directory of the instance that this configuration file configures."""
    unit = unit_name(path, settings.instance)
    return settings.instance if unit is None else unit.partition("@")[2]


def directory_of(path: str, settings: Settings) -> Path:
    """The directory; it may not exist yet."""
    return state_directory(name_of(path, settings))


def owners_of(path: str, settings: Settings) -> frozenset[int]:
    """The user of its unit: the key of a CA may belong to this user or to root. None without a unit."""
    if unit_name(path, settings.instance) is None:
        return frozenset()
    try:
        return frozenset({look_up_user(settings.user or USER).pw_uid})
    except PrivilegeError:
        return frozenset()
