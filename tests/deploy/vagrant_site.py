"""The acceptance against machines that `vagrant up` made: from outside, by ssh alone. vagrant/acceptance calls it.

Client mode, full mode, a reboot of the gateway, an upgrade (where PROXSMTP_NEXT_WHEEL names the next version's wheel),
removal. Each step is told with the seconds that it took. Exit status: 0, or 1 with what was wrong.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proxsmtp_tp.lab.network import LabError
from proxsmtp_tp.lab.scenario import Setup
from tests.deploy import acceptance

if TYPE_CHECKING:
    from collections.abc import Callable

VAGRANT = Path(__file__).resolve().parents[2] / "vagrant"
PLAY_SECONDS = 1800.0
"""An emulated machine takes minutes for a play."""


@dataclass(frozen=True, slots=True)
class Machine:
    """One of them, by ssh, as root."""

    name: str
    settings: Path

    def run(self, *command: str, text: str = "", seconds: float = 300.0, check: bool = True) -> str:
        """Run to the end there. Raises LabError if it fails (and `check`), or takes longer."""
        words = ["ssh", "-F", str(self.settings), "-o", "ConnectTimeout=30", self.name, shlex.join(["sudo", *command])]
        try:
            done = subprocess.run(words, input=text, capture_output=True, text=True, timeout=seconds, check=False)
        except subprocess.TimeoutExpired as error:
            raise LabError(f"{self.name}: {' '.join(command)[:200]} took longer than {seconds:g} s") from error
        if check and done.returncode != 0:
            raise LabError(f"{self.name}: {' '.join(command)[:200]} exited with {done.returncode}: {done.stderr}")
        return done.stdout


def main() -> int:
    """The acceptance, step by step."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Path(folder, "ssh_config")
        settings.write_text(_vagrant("ssh-config"))
        sender, gateway, mx = (Machine(name, settings) for name in ("sender", "gateway", "mx"))
        site = acceptance.Site(sender, gateway, mx)
        client, full = Setup("redirect", "client"), Setup("tproxy", "full")
        _step("mail in client mode", lambda: acceptance.accept(site, client))
        _step("reboot of the gateway", lambda: reboot(gateway))
        _step("mail after the reboot", lambda: acceptance.accept(site, client))
        _step("full mode by the role", lambda: play(transparent_proxy="full", rule_mode="tproxy"))
        _step("mail in full mode", lambda: acceptance.accept(site, full))
        if wheel := os.environ.get("PROXSMTP_NEXT_WHEEL"):
            version = Path(wheel).name.split("-")[1]
            more = {"wheel": wheel, "version": version, "transparent_proxy": "full", "rule_mode": "tproxy"}
            _step(f"upgrade to {version}", lambda: play(**more))
            _step("mail after the upgrade", lambda: acceptance.accept(site, full))
        _step("removal", lambda: play(state="absent", forwarding=True))
        gateway.run("sysctl", "-q", "-w", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        _step("mail without us", lambda: acceptance.accept_direct(site))
    return 0


def reboot(gateway: Machine) -> None:
    """And wait until it is up again."""
    before = gateway.run("cat", "/proc/sys/kernel/random/boot_id")
    gateway.run("systemctl", "reboot", check=False)
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        try:
            if gateway.run("cat", "/proc/sys/kernel/random/boot_id", seconds=60) != before:
                gateway.run("systemctl", "is-system-running", "--wait", check=False)
                return
        except LabError:
            time.sleep(1)
    raise LabError("the gateway does not come back from its reboot")


def play(**variables: Any) -> None:
    """The role once more, with these of its variables and those of the Vagrantfile."""
    settings = ((name, os.environ.get(f"PROXSMTP_{name.upper()}")) for name in ("wheel", "wheelhouse", "version"))
    own = {name: value for name, value in settings if value}
    dot = Path(os.environ.get("VAGRANT_DOTFILE_PATH", VAGRANT / ".vagrant"))
    inventory = dot / "provisioners/ansible/inventory"
    extra = json.dumps({f"proxsmtp_tp_{name}": value for name, value in {**own, **variables}.items()})
    done = subprocess.run(
        ["ansible-playbook", "-i", str(inventory), str(VAGRANT / "gateway.yml"), "-e", extra],
        env={
            **os.environ,
            "ANSIBLE_CONFIG": str(VAGRANT.parent / "ansible/ansible.cfg"),
            "ANSIBLE_HOST_KEY_CHECKING": "0",
        },
        capture_output=True,
        text=True,
        timeout=PLAY_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        raise LabError(f"ansible-playbook ended with {done.returncode}:\n{(done.stdout + done.stderr)[-3000:]}")


def _vagrant(*arguments: str) -> str:
    done = subprocess.run(
        ["vagrant", *arguments], cwd=VAGRANT, capture_output=True, text=True, timeout=300, check=False
    )
    if done.returncode != 0:
        raise LabError(f"vagrant {' '.join(arguments)}: {' '.join(done.stderr.split())}")
    return done.stdout


def _step(name: str, do: Callable[[], None]) -> None:
    start = time.monotonic()
    do()
    print(f"{name}: {time.monotonic() - start:.0f} s", flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (LabError, AssertionError) as error:
        sys.exit(f"not accepted: {error}")
