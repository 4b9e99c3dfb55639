"""Drops root: keeps only the privileges that are needed, and verifies it. Every failure is fatal.

The order is group, supplementary groups, user, capabilities, because each step needs privileges that the next one takes
away. At most CAP_NET_RAW stays ("bind to any address for transparent proxying", capabilities(7)). CAP_NET_ADMIN would
serve for IP_TRANSPARENT, too, but with it a process could change firewall and routes. CAP_NET_RAW is permitted and
effective, but neither inheritable nor ambient, so a filter does not get it (capabilities(7), "Transformation of
capabilities during execve").

Two restrictions are left out on purpose: no_new_privs, and an empty bounding set. With them, setuid and setgid programs
that filters of 1.10 call (sudo, postdrop) would not work. The unit file sets them.

The daemon is not dumpable (prctl(2), PR_SET_DUMPABLE), as the kernel makes a process that changed its user: filters,
which run as the same user, cannot trace it, and reach neither its capabilities nor its memory, nor its descriptors.

Diagnostics: PrivilegeError, which says what to do.
"""

from __future__ import annotations

import ctypes
import logging
import os
import pwd
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from proxsmtp_tp.config.settings import Settings

log = logging.getLogger(__name__)

CAP_NET_RAW = 13  # linux/capability.h
_CAPABILITY_VERSION_3 = 0x20080522
_PR_SET_DUMPABLE = 4  # linux/prctl.h
_PR_SET_KEEPCAPS = 8  # linux/prctl.h
_PR_GET_SECUREBITS = 27
_SECBIT_KEEP_CAPS = 1 << 4  # linux/securebits.h
_STATUS = Path("/proc/self/status")


class PrivilegeError(Exception):
    """The privileges are not as required, and cannot be changed."""


class _CapHeader(ctypes.Structure):
    """struct __user_cap_header_struct."""

    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _CapData(ctypes.Structure):
    """struct __user_cap_data_struct; two of them have 64 bits."""

    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


def look_up_user(user: str) -> pwd.struct_passwd:
    """The account that `User` names, by name or number. Raises PrivilegeError."""
    try:
        return pwd.getpwuid(int(user)) if user.isascii() and user.isdecimal() else pwd.getpwnam(user)
    except (KeyError, OverflowError, ValueError):
        raise PrivilegeError(
            f"couldn't look up user: {user}: make it with `adduser --system --group {user}`, or change User"
        ) from None


def groups_of(settings: Settings) -> set[int]:
    """The groups of the user that the daemon becomes, or is; none if there is no such user."""
    try:
        user = look_up_user(settings.user) if settings.user is not None else None
    except PrivilegeError:
        return set()
    return {os.getegid(), *os.getgroups()} if user is None else set(os.getgrouplist(user.pw_name, user.pw_gid))


def drop_privileges(user: str | None, net_raw: bool) -> None:
    """Become `user` and keep CAP_NET_RAW only if `net_raw`; verify it. Raises PrivilegeError.

    Without root the user stays; capabilities that the service manager gave are reduced in the same way.
    """
    account = look_up_user(user) if user is not None else None
    _prctl(_PR_SET_DUMPABLE, 0)
    if net_raw and not has_net_raw():
        raise PrivilegeError(
            "TransparentProxy full needs CAP_NET_RAW: start as root, or give the unit AmbientCapabilities=CAP_NET_RAW"
        )
    if os.geteuid() != 0:
        if account is not None and account.pw_uid != os.geteuid():
            log.warning("must be started as root to switch to user: %s", user)
        _keep_capabilities(net_raw)
        _verify(os.getresuid(), os.getresgid(), net_raw)
    elif account is None or account.pw_uid == 0:
        log.warning("running as root is NOT recommended: give User in the configuration")
    else:
        _become(account, net_raw)
        _verify((account.pw_uid,) * 3, (account.pw_gid,) * 3, net_raw)
        log.debug("switched to user %s (uid %d, gid %d)", account.pw_name, account.pw_uid, account.pw_gid)


def has_net_raw() -> bool:
    """Whether this process may use CAP_NET_RAW now."""
    return bool(_capabilities()["CapPrm"] & 1 << CAP_NET_RAW)


def _become(account: pwd.struct_passwd, net_raw: bool) -> None:
    try:
        _prctl(_PR_SET_KEEPCAPS, 1)
        os.setresgid(account.pw_gid, account.pw_gid, account.pw_gid)
        os.initgroups(account.pw_name, account.pw_gid)
        os.setresuid(account.pw_uid, account.pw_uid, account.pw_uid)
        _keep_capabilities(net_raw)
    except OSError as error:
        raise PrivilegeError(
            f"unable to switch to user: {account.pw_name} (uid {account.pw_uid}, gid {account.pw_gid}):"
            f" {error.strerror}: start as root with CAP_SETUID and CAP_SETGID"
        ) from error


def _keep_capabilities(net_raw: bool) -> None:
    """Permitted and effective: CAP_NET_RAW or nothing. Inheritable: nothing; the kernel lowers ambient with it."""
    kept = 1 << CAP_NET_RAW if net_raw else 0
    header = _CapHeader(_CAPABILITY_VERSION_3, 0)
    data = (_CapData * 2)(_CapData(kept, kept, 0), _CapData(0, 0, 0))
    _checked(_libc().capset(ctypes.byref(header), ctypes.byref(data)))
    _prctl(_PR_SET_KEEPCAPS, 0)


def _verify(uids: tuple[int, ...], gids: tuple[int, ...], net_raw: bool) -> None:
    """Ask the kernel for our user, groups and capabilities, and try to become root again."""
    if tuple(os.getresuid()) != uids or tuple(os.getresgid()) != gids:
        raise PrivilegeError("unable to completely drop privileges: the kernel kept another user or group")
    try:
        os.setresuid(0, 0, 0)
    except OSError:
        pass  # as it should be: EPERM, or EINVAL in a user namespace without root
    else:
        raise PrivilegeError("unable to completely drop privileges: root can be regained")
    kept = 1 << CAP_NET_RAW if net_raw else 0
    wanted = {"CapInh": 0, "CapPrm": kept, "CapEff": kept, "CapAmb": 0}
    if (found := _capabilities()) != wanted:
        raise PrivilegeError(f"unable to completely drop privileges: capabilities are {found}, not {wanted}")
    if _libc().prctl(_PR_GET_SECUREBITS, 0, 0, 0, 0) & _SECBIT_KEEP_CAPS:
        raise PrivilegeError("unable to completely drop privileges: capabilities would outlive a change of user")


def _capabilities() -> dict[str, int]:
    """The sets of proc(5), /proc/PID/status, except the bounding set."""
    try:
        lines = _STATUS.read_bytes().splitlines()
    except OSError as error:
        raise PrivilegeError(f"{_STATUS} cannot be read ({error.strerror}): mount /proc") from None
    sets = dict.fromkeys(("CapInh", "CapPrm", "CapEff", "CapAmb"), -1)
    for line in lines:
        name, _, value = line.decode("utf-8", "replace").partition(":")
        if name in sets:
            sets[name] = int(value, 16)
    return sets


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, argument: int) -> None:
    _checked(_libc().prctl(option, argument, 0, 0, 0))


def _checked(result: int) -> None:
    if result != 0:
        raise OSError(number := ctypes.get_errno(), os.strerror(number))
