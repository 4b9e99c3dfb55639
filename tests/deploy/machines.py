"""Sender, gateway and MX as three Debian machines with systemd, on the network of the lab; and Ansible for the gateway.

The gateway's network is made anew for each of its boots: what a machine sets up at boot, it must set up itself.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sysconfig
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from proxsmtp_tp.lab.network import (
    LAN_V4,
    LAN_V6,
    MX_V4,
    MX_V6,
    SENDER_V4,
    SENDER_V6,
    WAN_V4,
    WAN_V6,
    End,
    Host,
    LabError,
    Network,
)  # fmt: skip
from tests.deploy.acceptance import Site, wait_until
from tests.deploy.container import Container
from tests.deploy.prepare import TREE, VERSION, cache

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PLAY_SECONDS = 600.0
"""A first run takes half a minute on an idle machine."""
_RECAP = ("ok", "changed", "failures", "unreachable", "rescued")


@dataclass
class Machines:
    """The three machines. `directory` is scratch space of the caller's."""

    directory: Path
    sender: Container
    gateway: Container
    mx: Container
    hosts: dict[str, Host]
    _roads: Network = field(default_factory=Network)

    @property
    def site(self) -> Site:
        """For the acceptance."""
        return Site(self.sender, self.gateway, self.mx)

    @property
    def router(self) -> Host:
        """The gateway's network, as seen from outside of it."""
        return self.hosts["gateway"]

    def boot_gateway(self) -> None:
        """On a fresh network."""
        self._roads = Network()
        gateway = self._roads.host("gateway")
        self.hosts["gateway"] = gateway
        for name in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"):
            gateway.sysctl(name, 0)  # a new namespace takes it from the machine that the tests run on
        sender, mx = self.hosts["sender"], self.hosts["mx"]
        self._roads.connect(
            End(sender, "eth0", (f"{SENDER_V4}/24", f"{SENDER_V6}/64")),
            End(gateway, "lan", (f"{LAN_V4}/24", f"{LAN_V6}/64")),
        )
        self._roads.connect(
            End(mx, "eth0", (f"{MX_V4}/24", f"{MX_V6}/64")),
            End(gateway, "wan", (f"{WAN_V4}/24", f"{WAN_V6}/64")),
        )
        for host, via in ((sender, LAN_V4), (sender, LAN_V6), (mx, WAN_V4), (mx, WAN_V6)):
            self._roads.route(host, via)
        self.gateway.start()

    def stop_gateway(self) -> None:
        """And its network is gone."""
        self.gateway.stop()
        self._roads.__exit__(None, None, None)

    def play(self, *options: str, playbook: Path = TREE / "ansible/gateways.yml", **variables: Any) -> Run:
        """Run Ansible against the gateway with these role variables (without their prefix)."""
        values = {f"proxsmtp_tp_{name}": value for name, value in variables.items()}
        extra = self.directory / "variables.json"
        extra.write_text(json.dumps(values))
        command = [tool("ansible-playbook"), "-i", str(self._inventory()), str(playbook), "-e", f"@{extra}", *options]
        done = subprocess.run(
            self.router.command(*command),
            env={**os.environ, **self._settings()},
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=PLAY_SECONDS,
            check=False,
        )
        (self.directory / "ansible.log").write_text(done.stdout + done.stderr)
        return Run(done.returncode, done.stdout + done.stderr)

    def molecule(self) -> Run:
        """The scenario of the role: converge, idempotence, verify."""
        told = {
            "MOLECULE_GATEWAY_HOST": "127.0.0.1",
            "MOLECULE_GATEWAY_KEY": str(self.directory / "key"),
            "MOLECULE_WHEEL": wheel(VERSION),
            "MOLECULE_WHEELHOUSE": str(cache() / "wheels"),
            "MOLECULE_EPHEMERAL_DIRECTORY": str(self.directory / "molecule"),
        }
        done = subprocess.run(
            self.router.command(tool("molecule"), "test"),
            cwd=TREE / "ansible/roles/proxsmtp_tp",
            env={**os.environ, **self._settings(), **told},
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=PLAY_SECONDS,
            check=False,
        )
        return Run(done.returncode, done.stdout + done.stderr)

    def let_ansible_in(self) -> None:
        """A key of this run's own for root."""
        key = self.directory / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
        folder = self.gateway.root / "root/.ssh"
        folder.mkdir(mode=0o700, exist_ok=True)
        shutil.copy(key.with_suffix(".pub"), folder / "authorized_keys")

    def _inventory(self) -> Path:
        path = self.directory / "hosts.json"
        ssh = "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
        settings = {
            "ansible_host": "127.0.0.1",
            "ansible_user": "root",
            "ansible_ssh_private_key_file": str(self.directory / "key"),
            "ansible_ssh_common_args": ssh,
        }
        path.write_text(json.dumps({"gateways": {"hosts": {"gateway": settings}}}))
        return path

    def _settings(self) -> dict[str, str]:
        home = self.directory / "ansible"
        home.mkdir(exist_ok=True)
        return {
            "ANSIBLE_CONFIG": str(TREE / "ansible/ansible.cfg"),
            "ANSIBLE_HOME": str(home),
            "ANSIBLE_LOCAL_TEMP": str(home / "tmp"),
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(home / "cp"),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_DEPRECATION_WARNINGS": "0",
            "LC_ALL": "C.UTF-8",
        }


@dataclass(frozen=True, slots=True)
class Run:
    """What came of a play."""

    status: int
    output: str

    def count(self, what: str) -> int:
        """A number of the recap: ok, changed, failed, rescued."""
        words = self.output.rpartition("PLAY RECAP")[2].replace("=", " ").split()
        return int(words[words.index(what) + 1])

    @property
    def changes(self) -> list[str]:
        """The tasks that changed something, or in check mode would."""
        task, found = "", []
        for line in self.output.splitlines():
            if line.startswith(("TASK [", "RUNNING HANDLER [")):
                task = line.partition("[")[2].partition("]")[0]
            elif line.startswith("changed:"):
                found.append(task)
        return found


@contextmanager
def machines(directory: Path) -> Iterator[Machines]:
    """All three running, Postfix on sender and MX answering."""
    base, mail = cache() / "base", cache() / "mail"
    assert base.is_dir(), "no Debian root: type `make test-deploy`, which makes it first"
    with ExitStack() as undo:
        network = undo.enter_context(Network())
        hosts = {name: network.host(name) for name in ("sender", "mx")}
        sender, mx = (Container(name, directory / name, [mail, base]) for name in ("sender", "mx"))
        gateway = Container("gateway", directory / "gateway", [base])
        found = Machines(directory, sender, gateway, mx, hosts)
        for machine in (sender, mx, gateway):
            machine.mount()
            undo.callback(machine.stop)
        found.let_ansible_in()
        sender.start()
        mx.start()
        undo.callback(found.stop_gateway)
        found.boot_gateway()
        for machine in (sender, mx):
            machine.run("sh", "-s", machine.name, text=(TREE / "vagrant/mail-server").read_text())
            if not wait_until(partial(_greets, machine)):
                raise LabError(f"Postfix on {machine.name} does not answer")
        yield found


def tool(name: str) -> str:
    """Where a program of the development environment is."""
    path = shutil.which(name, path=f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ['PATH']}")
    assert path is not None, f"{name} is missing: it comes with the group dev of pyproject.toml"
    return path


def wheel(version: str) -> str:
    """A release of this project, for the role."""
    (path,) = (cache() / "release").glob(f"proxsmtp_tp-{version}-*.whl")
    return str(path)


def _greets(machine: Container) -> bool:
    script = "import socket; print(socket.create_connection(('127.0.0.1', 25), 5).recv(4).decode())"
    return machine.run("python3", "-c", script, check=False).startswith("220")
