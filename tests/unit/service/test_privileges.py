"""Privileges: really dropped, by processes of their own, and what is left is what the kernel says.

As root of a user namespace that maps nobody else there is no user to become: then the refusal is what is
tested.
"""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from proxsmtp_tp.service.privileges import CAP_NET_RAW, PrivilegeError, look_up_user

NOBODY = pwd.getpwnam("nobody")
NET_RAW = 1 << CAP_NET_RAW
NONE = {"CapInh": 0, "CapPrm": 0, "CapEff": 0, "CapAmb": 0}
KEPT = {**NONE, "CapPrm": NET_RAW, "CapEff": NET_RAW}


WITHOUT_NET_RAW = ("setpriv", "--bounding-set=-net_raw", "--inh-caps=-net_raw", "--")


def drop(*arguments: str, through: tuple[str, ...] = ()) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*through, sys.executable, str(Path(__file__).with_name("drop.py")), *arguments],
        capture_output=True,
        check=False,
        cwd=Path(__file__).parents[3],
    )


def mapped(uid: int) -> bool:
    """Whether this user exists in the user namespace (user_namespaces(7))."""
    ranges = [[int(word) for word in line.split()] for line in Path("/proc/self/uid_map").read_text().splitlines()]
    return any(first <= uid < first + count for first, _, count in ranges)


def dropped(*arguments: str) -> dict[str, Any]:
    """What is left, or nothing where nobody cannot be; then the refusal is checked here."""
    done = drop(*arguments)
    if os.geteuid() == 0 and mapped(NOBODY.pw_uid):
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))
    assert done.returncode == 1 or os.geteuid() != 0
    assert b"switch to user" in done.stderr
    return {}


@pytest.mark.parametrize("user", ["nobody", str(NOBODY.pw_uid)])
def test_root_becomes_the_user_and_keeps_nothing(user: str) -> None:
    if left := dropped(user, "-"):
        assert left["uids"] == [NOBODY.pw_uid] * 3
        assert left["gids"] == [NOBODY.pw_gid] * 3
        assert left["groups"] == os.getgrouplist("nobody", NOBODY.pw_gid)
        assert left["capabilities"] == NONE
        assert left["of_a_program"] == NONE
        assert left["regained"] == []
        assert left["dumpable"] != 1


def test_full_mode_keeps_one_capability_and_no_program_gets_it() -> None:
    if left := dropped("nobody", "NET_RAW"):
        assert left["uids"] == [NOBODY.pw_uid] * 3
        assert left["capabilities"] == KEPT
        assert left["of_a_program"] == NONE
        assert left["regained"] == []


@pytest.mark.parametrize(("wanted", "kept"), [("-", NONE), ("NET_RAW", KEPT)])
def test_what_a_service_manager_gave_is_cut_down(wanted: str, kept: dict[str, int]) -> None:
    if os.geteuid() == 0 and mapped(NOBODY.pw_uid):
        done = drop("nobody", wanted, "ambient")
        assert done.returncode == 0, done.stderr
        left = json.loads(done.stdout)
        assert left["capabilities"] == kept
        assert left["of_a_program"] == NONE
        assert done.stderr == b""  # it is that user already


def test_another_user_without_root_is_warned_of_as_by_the_original() -> None:
    if os.geteuid() == 0 and mapped(NOBODY.pw_uid):
        done = drop("daemon", "-", "ambient")
        assert done.returncode == 0
        assert json.loads(done.stdout)["uids"] == [NOBODY.pw_uid] * 3
        assert done.stderr == b"must be started as root to switch to user: daemon\n"


@pytest.mark.parametrize("user", ["-", "root", "0"])
def test_root_that_stays_root_is_warned_of(user: str) -> None:
    done = drop(user, "-")
    assert done.returncode == 0
    if os.geteuid() == 0:
        assert b"running as root is NOT recommended" in done.stderr


def test_full_mode_without_the_capability_is_refused() -> None:
    if os.geteuid() == 0 and mapped(NOBODY.pw_uid):
        done = drop("nobody", "NET_RAW", through=WITHOUT_NET_RAW)
        assert done.returncode == 1
        assert b"AmbientCapabilities=CAP_NET_RAW" in done.stderr
        assert done.stdout == b""


@pytest.mark.parametrize("user", ["no-such-user", "4000000001", "9" * 5000, "a\0b", "\udcfc", "-1", "1_0", "٣"])
def test_a_user_that_does_not_exist(user: str) -> None:
    with pytest.raises(PrivilegeError, match="couldn't look up user"):
        look_up_user(user)


def test_a_user_by_number_is_the_account_of_that_number() -> None:
    assert look_up_user("0").pw_name == "root"
    assert look_up_user(str(NOBODY.pw_uid)).pw_name == "nobody"
