"""The isolation of an ordinary user: root inside, nobody outside."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from tests.real.ordinary_user import USER, as_ordinary_user

if TYPE_CHECKING:
    from pathlib import Path


def _isolated(script: str, workspace: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "proxsmtp_tp.lab.isolate", "sh", "-c", script]
    return subprocess.run(as_ordinary_user(command, workspace), capture_output=True, text=True, timeout=30, check=False)


def test_the_user_is_ordinary(tmp_path: Path) -> None:
    """What the other tests here stand on."""
    done = subprocess.run(
        as_ordinary_user(["sh", "-c", "id -u; grep CapEff /proc/self/status"], tmp_path),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [str(USER), "CapEff:", "0" * 16]


def test_root_inside(tmp_path: Path) -> None:
    """Namespaces, firewall and settings of its own, as root has them."""
    script = "id -u; ip netns add one && ls /run/netns; nft add table inet t && nft list tables; "
    script += "echo 1 >/proc/sys/net/ipv4/ip_forward; cat /proc/sys/net/ipv4/ip_forward; exit 9"
    done = _isolated(script, tmp_path)
    assert done.stdout.splitlines() == ["0", "one", "table inet t", "1"]
    assert done.returncode == 9


def test_root_inside_has_no_rights_outside(tmp_path: Path) -> None:
    """Being root inside gives no right to what belongs to root outside."""
    done = _isolated("cat /etc/shadow; echo x >/etc/proxsmtp-tp-test; kill -0 1 && echo mine", tmp_path)
    assert done.stdout == "mine\n"
    assert done.stderr.count("ermission denied") == 2
