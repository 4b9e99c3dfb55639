"""Sender, gateway and MX as three Debian machines with systemd, on the network of the lab; and Ansible for the gateway.

The gateway's network is made again for each boot: so only the gateway itself sets up what it needs at a boot.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proxsmtp_tp.lab.gateway import host_state
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
from tools.deb import TREE, VERSION
from tools.roots import cache

if TYPE_CHECKING:
    from tools.roots import Release

FIRST = "gateway-a.example"
"""The gateway of the example inventory that `Machines.gateway` stands for."""
SECOND_V4 = "203.0.113.1"
PLAY_SECONDS = 600.0
"""A first run takes half a minute on an idle machine."""
_QUESTIONS = {
    "packages": ("dpkg-query", "-f", "${Package} ${Status}\n", "-W"),
    "users": ("getent", "passwd"),
    "groups": ("getent", "group"),
    "unit files": ("systemctl", "list-unit-files", "--no-legend", "--no-pager"),
    "units": ("systemctl", "list-units", "--all", "--plain", "--no-legend", "--no-pager", "proxsmtp*"),
    "files": ("find", "/etc", "/opt", "/usr/local", "/var/cache", "/var/lib", "/var/log", "-path", "*proxsmtp*"),
}


@dataclass
class Machines:
    """The three machines. `directory` is scratch space of the caller's."""

    directory: Path
    sender: Container
    gateway: Container
    mx: Container
    hosts: dict[str, Host]
    _network: Network = field(default_factory=Network)
    _fresh: Iterator[int] = field(default_factory=count)

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
        self._network = Network()
        gateway = self._network.host("gateway")
        self.hosts["gateway"] = gateway
        for name in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"):
            gateway.sysctl(name, 0)  # a new namespace takes it from the machine that the tests run on
        sender, mx = self.hosts["sender"], self.hosts["mx"]
        self._network.connect(
            End(sender, "eth0", (f"{SENDER_V4}/24", f"{SENDER_V6}/64")),
            End(gateway, "lan", (f"{LAN_V4}/24", f"{LAN_V6}/64")),
        )
        self._network.connect(
            End(mx, "eth0", (f"{MX_V4}/24", f"{MX_V6}/64")),
            End(gateway, "wan", (f"{WAN_V4}/24", f"{WAN_V6}/64")),
        )
        for host, via in ((sender, LAN_V4), (sender, LAN_V6), (mx, WAN_V4), (mx, WAN_V6)):
            self._network.route(host, via)
        self.gateway.start()

    @contextmanager
    def gateway_of(self, release: Release, *layers: Path) -> Iterator[Container]:
        """A fresh gateway of this release, with these layers over it, in the place of the first one, meanwhile."""
        first = self.gateway
        self.stop_gateway()
        self.gateway = Container("gateway", self.directory / f"fresh{next(self._fresh)}", [*layers, release.root])
        self.gateway.mount()
        self._let_ansible_into(self.gateway)
        self.boot_gateway()
        try:
            yield self.gateway
        finally:
            self.stop_gateway()
            self.gateway = first
            self.boot_gateway()

    def daemon_version(self) -> str:
        """Of the daemon that runs on the gateway."""
        (answer,) = json.loads(self.gateway.run("proxsmtp-tp", "status", "--json", check=False))
        return str(answer["version"])

    def rules_in_place(self) -> bool:
        """What check-rules says on the gateway."""
        command = ("proxsmtp-tp", "check-rules", "-f", "/etc/proxsmtp-tp/gateway.conf", "--json")
        return '"in place"' in self.gateway.run(*command, check=False)

    def stop_gateway(self) -> None:
        """Stop the gateway, and remove its network."""
        self.gateway.stop()
        # The kernel removes a namespace in the background; until then its neighbours would keep their end of the cable.
        for name in ("lan", "wan") if "gateway" in self.hosts else ():
            subprocess.run(self.router.command("ip", "link", "del", name), capture_output=True, check=False)
        self._network.__exit__(None, None, None)

    def state(self) -> dict[str, list[str]]:
        """What an administrator would look at on the gateway: network, packages, users, units, files where ours go.

        Without link-local addresses: they come from hardware addresses, which each boot makes anew.
        """
        inside = {name: self.gateway.run(*command).splitlines() for name, command in _QUESTIONS.items()}
        network = host_state(self.router)
        return inside | {name: [line for line in lines if "fe80:" not in line] for name, lines in network.items()}

    @contextmanager
    def second_gateway(self) -> Iterator[Container]:
        """The other gateway of the example inventory, whose clients would come in by eth1; Ansible reaches it there."""
        with Network() as network:
            host = network.host("gateway-b")
            network.connect(End(self.router, "eth1", ("203.0.113.254/24",)), End(host, "eth1", (f"{SECOND_V4}/24",)))
            machine = Container("gateway-b", self.directory / "gateway-b", self.gateway.layers)
            machine.mount()
            self._let_ansible_into(machine)
            machine.start()
            try:
                yield machine
            finally:
                machine.stop()

    def play(self, *options: str, gateways: str = FIRST, **variables: Any) -> Run:
        """Run the playbook with the example inventory, these `gateways` of it, and these role variables beyond it
        (without their prefix).
        """
        values = {f"proxsmtp_tp_{name}": value for name, value in variables.items()}
        extra = self.directory / "variables.json"
        extra.write_text(json.dumps(values))
        done = subprocess.run(
            self.router.command(
                tool("ansible-playbook"),
                "-i",
                TREE / "ansible/inventory/hosts.yml",
                "-i",
                self._inventory_of_hosts(),
                TREE / "ansible/gateways.yml",
                "--limit",
                gateways,
                "-e",
                f"@{extra}",
                *options,
            ),
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
            "MOLECULE_GATEWAY_KEY": str(self._key),
            "MOLECULE_WHEEL": wheels(VERSION),
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
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self._key)], check=True)
        self._let_ansible_into(self.gateway)

    @property
    def _key(self) -> Path:
        return self.directory / "key"

    def _let_ansible_into(self, machine: Container) -> None:
        folder = machine.root / "root/.ssh"
        folder.mkdir(mode=0o700, exist_ok=True)
        shutil.copy(self._key.with_suffix(".pub"), folder / "authorized_keys")

    def _inventory_of_hosts(self) -> Path:
        """What goes before the example inventory: Ansible runs on the first gateway's network."""
        settings = {
            "ansible_user": "root",
            "ansible_ssh_private_key_file": str(self._key),
            "ansible_ssh_common_args": "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null",
        }
        path = self.directory / "hosts.json"
        path.write_text(json.dumps({"gateways": {"hosts": {FIRST: {"ansible_host": "127.0.0.1"}}, "vars": settings}}))
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
            # Molecule calls its neighbours by name.
            "PATH": f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ['PATH']}",
        }


@dataclass(frozen=True, slots=True)
class Run:
    """The result of a play."""

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
def running_machines(directory: Path) -> Iterator[Machines]:
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


def variables(version: str = VERSION, **more: Any) -> dict[str, Any]:
    """What a play is told beyond the example inventory."""
    return {
        "version": version,
        "wheel": wheels(version),
        "wheelhouse": str(cache() / "wheels"),
        "drain_time_out": 10,
        **more,
    }


def tool(name: str) -> str:
    """Where a program of the development environment is."""
    path = shutil.which(name, path=f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ['PATH']}")
    assert path is not None, f"{name} is missing: it comes with the group dev of pyproject.toml"
    return path


def wheels(version: str) -> str:
    """A release of this project, for the role: a pattern. Of VERSION there is a compiled wheel, too, for Debian 12."""
    return str(cache() / "release" / f"proxsmtp_tp-{version}-*.whl")


def wheel(version: str) -> str:
    """The pure wheel of a release."""
    return str(cache() / "release" / f"proxsmtp_tp-{version}-py3-none-any.whl")


def _greets(machine: Container) -> bool:
    script = "import socket; print(socket.create_connection(('127.0.0.1', 25), 5).recv(4).decode())"
    return machine.run("python3", "-c", script, check=False).startswith("220")
