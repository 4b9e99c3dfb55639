"""`drop.py USER|- NET_RAW|- [GIVEN]`: drops privileges and prints, as JSON, what is left. Exit 1 with the
error if it cannot.

GIVEN `ambient` first makes CAP_NET_ADMIN and CAP_NET_RAW ambient and becomes nobody, as a service manager
does.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

from proxsmtp_tp.service import privileges

NOBODY = 65534
CAP_NET_ADMIN = 12  # linux/capability.h


def capabilities(text: str) -> dict[str, int]:
    lines = (line.partition(":") for line in text.splitlines())
    return {name: int(value, 16) for name, _, value in lines if name.startswith("Cap") and name != "CapBnd"}


def given_as_by_a_service_manager() -> None:
    """Unprivileged, but with two ambient capabilities."""
    both = 1 << CAP_NET_ADMIN | 1 << privileges.CAP_NET_RAW
    privileges._prctl(privileges._PR_SET_KEEPCAPS, 1)
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    header = privileges._CapHeader(privileges._CAPABILITY_VERSION_3, 0)
    data = (privileges._CapData * 2)(privileges._CapData(both, both, both), privileges._CapData(0, 0, 0))
    privileges._checked(privileges._libc().capset(ctypes.byref(header), ctypes.byref(data)))
    for capability in (CAP_NET_ADMIN, privileges.CAP_NET_RAW):
        privileges._checked(privileges._libc().prctl(47, 2, capability, 0, 0))


def regained() -> list[str]:
    """What can be had back."""
    found = []
    for attempt in (os.setuid, os.seteuid, os.setgid, os.setegid):
        try:
            attempt(0)
        except OSError:
            continue
        found.append(attempt.__name__)
    try:
        os.setgroups([0])
    except OSError:
        return found
    return [*found, "setgroups"]


def main() -> int:
    user, net_raw, given = [*sys.argv[1:], ""][:3]
    logging.basicConfig(format="%(message)s")
    subprocess.run(["true"], check=True)  # what it imports may be out of reach later
    if given == "ambient":
        given_as_by_a_service_manager()
    try:
        privileges.drop_privileges(None if user == "-" else user, net_raw == "NET_RAW")
    except privileges.PrivilegeError as error:
        print(error, file=sys.stderr)
        return 1
    child = subprocess.run(["cat", "/proc/self/status"], check=True, capture_output=True).stdout.decode()
    own = capabilities(Path("/proc/self/status").read_bytes().decode())
    result = {
        "uids": os.getresuid(),
        "gids": os.getresgid(),
        "groups": os.getgroups(),
        "capabilities": own,
        "of_a_program": capabilities(child),
        "regained": regained(),
        "dumpable": privileges._libc().prctl(3, 0, 0, 0, 0),
    }
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
