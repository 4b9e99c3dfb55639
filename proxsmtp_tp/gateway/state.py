"""What we have installed, in files under /run: one for each instance and network namespace. Their folder is the lock.

/run, because rules and policy routing do not survive a reboot either. A file is replaced in one step (rename(2)), so a
reader sees the old or the new one. It is written before the first change to the box and deleted after the last, so
that after a crash it names at least what is there.

Diagnostics: GatewayError for a directory that cannot be used; a damaged file counts as none, with a warning.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import socket
import struct
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from enum import Enum
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proxsmtp_tp.gateway.errors import GatewayError
from proxsmtp_tp.gateway.plan import Fail, Method, Mode, Options, Plan, PlanError, make_plan

if TYPE_CHECKING:
    from collections.abc import Iterator

# Not a folder of the daemon: it must not be able to tell root what to load.
DIRECTORY = Path("/run/proxsmtp-tp-rules")
SO_NETNS_COOKIE = 71  # linux asm-generic/socket.h; Linux 5.14: never given twice between two boots
_VERSION = 1
_LOCK_ATTEMPTS = 10  # each loss needs another process that came and went in between
_BUSY = "another install-rules or remove-rules is at work: try again when it is done"

_log = logging.getLogger(__name__)


class Phase(Enum):
    """How far an install or a removal came."""

    INSTALLING = "installing"
    INSTALLED = "installed"
    REMOVING = "removing"


@dataclass(frozen=True, slots=True)
class State:
    """One instance."""

    phase: Phase
    plan: Plan
    previous: Plan | None = None
    """While installing or unconfirmed: what the box goes back to. None: no rules."""
    deadline: float | None = None
    """Unconfirmed: seconds of CLOCK_BOOTTIME at which the rules are undone."""
    token: str = ""
    """Unconfirmed: tells this try from a later one."""


def namespace_id() -> str:
    """What tells this network namespace from every other one since boot."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            return f"{struct.unpack('=Q', sock.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8))[0]}"
        except OSError:  # before Linux 5.14; an inode number may come again, but never two at a time
            return f"i{Path('/proc/thread-self/ns/net').stat().st_ino}"


class Store:
    """The files of one network namespace."""

    def __init__(self, directory: Path = DIRECTORY) -> None:
        self.directory = directory
        self._namespace = namespace_id()

    def path(self, instance: str) -> Path:
        """The file of an instance."""
        return self.directory / f"{instance}@{self._namespace}.json"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Be the only one who changes rules. Raises GatewayError if somebody else does."""
        try:
            descriptor = self._open_directory()
        except OSError as error:
            busy = error.errno == errno.EWOULDBLOCK
            raise GatewayError(_BUSY if busy else f"{self.directory} cannot be used: {error.strerror}") from error
        try:
            yield
        finally:
            # An empty folder would be something that was not there before.
            with suppress(OSError):
                self.directory.rmdir()
            os.close(descriptor)

    def _open_directory(self) -> int:
        """The locked folder. It is made anew if another process removed it between our making and locking it."""
        for _ in range(_LOCK_ATTEMPTS):
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o755)
            descriptor = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            with ExitStack() as undo:
                undo.callback(os.close, descriptor)
                if os.fstat(descriptor).st_uid != os.geteuid():
                    raise GatewayError(f"{self.directory} belongs to another user: remove it")
                with suppress(FileNotFoundError):
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    if os.path.samestat(os.fstat(descriptor), self.directory.stat()):
                        undo.pop_all()
                        return descriptor
        raise GatewayError(_BUSY)

    def read(self, instance: str) -> State | None:
        """What is installed for an instance; None if nothing is known."""
        try:
            text = self.path(instance).read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        try:
            return _decode(json.loads(text))
        except (ValueError, KeyError, TypeError, PlanError):
            _log.warning("%s is damaged: the rules are found without it", self.path(instance))
            return None

    def read_all(self) -> dict[str, State]:
        """Every instance of this network namespace."""
        suffix = f"@{self._namespace}.json"
        found = {}
        for path in sorted(self.directory.glob(f"*{suffix}")):
            instance = path.name.removesuffix(suffix)
            if state := self.read(instance):
                found[instance] = state
        return found

    def write(self, state: State) -> None:
        """Replace the file of `state`'s instance, in one step that survives a crash."""
        path = self.path(state.plan.options.instance)
        beside = path.with_name(f".{path.name}.new")
        with beside.open("w", encoding="utf-8") as file:
            json.dump(_encode(state), file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)

    def delete(self, instance: str) -> None:
        """Forget an instance."""
        self.path(instance).unlink(missing_ok=True)


def _encode(state: State) -> dict[str, Any]:
    return {
        "version": _VERSION,
        "phase": state.phase.value,
        "plan": _encode_plan(state.plan),
        "previous": _encode_plan(state.previous) if state.previous else None,
        "deadline": state.deadline,
        "token": state.token,
    }


def _encode_plan(plan: Plan) -> dict[str, Any]:
    options = asdict(plan.options)
    for name in ("sources", "except_sources", "except_destinations"):
        options[name] = [str(network) for network in options[name]]
    options |= {name: options[name].value for name in ("method", "mode", "fail")}
    return {"slot": plan.numbers.slot, "options": options}


def _decode(data: Any) -> State:
    if data["version"] != _VERSION:
        raise ValueError(data["version"])
    previous = data["previous"]
    return State(
        Phase(data["phase"]), _decode_plan(data["plan"]), _decode_plan(previous) if previous else None,
        data["deadline"], data["token"],
    )  # fmt: skip


def _decode_plan(data: Any) -> Plan:
    options = dict(data["options"])
    for name in ("sources", "except_sources", "except_destinations"):
        options[name] = tuple(ip_network(text) for text in options[name])
    options |= {name: tuple(options[name]) for name in ("interfaces", "ports")}
    options |= {"method": Method(options["method"]), "mode": Mode(options["mode"]), "fail": Fail(options["fail"])}
    return make_plan(replace(Options(options["instance"]), **options), data["slot"])
