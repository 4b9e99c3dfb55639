"""What an administrator without Ansible copies to the gateway: wheels of this and the next version, sample filter."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.deploy.machines import Machines, wheel
from tests.deploy.prepare import NEXT_VERSION
from tools.deb import TREE, VERSION
from tools.roots import cache

if TYPE_CHECKING:
    from collections.abc import Iterator

# The gateway has no network beyond the lab's: its pip takes what the project depends on from a folder.
_PIP = "[global]\nno-index = yes\nfind-links = /root/wheels\n"
_LEAVE = """
export DEBIAN_FRONTEND=noninteractive
rm -rf /opt/proxsmtp-tp* /usr/local/bin/proxsmtp-tp /root/wheels /root/*.whl /root/sample-filter.sh /etc/pip.conf
apt-get purge -q -y --autoremove python3-venv nftables
"""


def leave_behind(machines: Machines, unit: str) -> None:
    """As a filter that leaves a process behind: in the unit's control group, and no worker ends it."""
    leave = (
        "setsid setpriv --reuid proxsmtp-tp --clear-groups sleep 600 >/dev/null 2>&1 &"
        f' group="$(systemctl show -p ControlGroup --value {unit})";'
        ' for file in /sys/fs/cgroup/systemd"$group"/cgroup.procs /sys/fs/cgroup/unified"$group"/cgroup.procs'
        ' /sys/fs/cgroup"$group"/cgroup.procs; do [ ! -e "$file" ] || echo $! >"$file"; done'
    )
    machines.gateway.run("sh", "-c", leave)
    assert "sleep" in machines.gateway.run("pgrep", "-l", "-u", "proxsmtp-tp")


@contextmanager
def wheels(machines: Machines) -> Iterator[None]:
    """In /root: the project's wheel and the sample filter. Afterwards the program is gone, however it came."""
    root = machines.gateway.root
    (root / "root/wheels").mkdir()
    for path in (cache() / "wheels").glob("*.whl"):
        (root / "root/wheels" / path.name).write_bytes(path.read_bytes())
    releases = [Path(wheel(version)) for version in (VERSION, NEXT_VERSION)]
    for path in (TREE / "proxsmtp_tp/lab/sample-filter.sh", *releases):
        (root / "root" / path.name).write_bytes(path.read_bytes())
    (root / "etc/pip.conf").write_text(_PIP)
    try:
        yield
    finally:
        machines.gateway.run("sh", "-ec", _LEAVE)
