"""What is installed, in state files under /run: one for each instance and network namespace.

They are in /run, because a reboot removes rules and policy routing, too. A file is replaced in one step
(rename(2)), so a reader sees the old file or the new one. It is written before the first change to the host and deleted
after the last one: after a crash it names at least everything that is installed. A process that changes rules holds
the lock of the network namespace (`lock`). The lock file also shows when the namespace no longer exists: then its
state files are deleted.

Diagnostics: GatewayError for a directory that cannot be used; a damaged file is ignored, with a warning.
"""

from __future__ import annotations

import json
import logging
import os
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from enum import Enum
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proxsmtp_tp.gateway import lock
from proxsmtp_tp.gateway.errors import StateError
from proxsmtp_tp.gateway.plan import Existing, Fail, Forward, Method, Mode, Options, Plan, PlanError, make_plan

if TYPE_CHECKING:
    from collections.abc import Iterator

# Not a directory that the daemon may write: root loads what these files say.
DIRECTORY = Path("/run/proxsmtp-tp-rules")
_VERSION = 1

_log = logging.getLogger(__name__)


class Phase(Enum):
    """The progress of an install or a removal."""

    INSTALLING = "installing"
    INSTALLED = "installed"
    REMOVING = "removing"


@dataclass(frozen=True, slots=True)
class State:
    """What is installed for one instance."""

    phase: Phase
    plan: Plan
    previous: Plan | None = None
    """While installing or unconfirmed: the plan to restore. None: no rules."""
    deadline: float | None = None
    """Unconfirmed: seconds of CLOCK_BOOTTIME at which the rules are undone."""
    token: str = ""
    """Unconfirmed: identifies this trial, so that a later one is not taken for it."""


class Store:
    """The files of one network namespace."""

    def __init__(self, directory: Path = DIRECTORY) -> None:
        self.directory = directory
        self._namespace = lock.namespace_id()
        self._suffix = f"@{self._namespace}.json"

    def path(self, instance: str) -> Path:
        """The file of an instance."""
        return self.directory / f"{instance}{self._suffix}"

    @contextmanager
    def lock(self, seconds: float = lock.WAIT) -> Iterator[None]:
        """Take the lock for changes of rules in this network namespace, for `with`; wait up to `seconds` for others.

        Raises GatewayError, which names the process that holds it. Also works where no file can be written.
        """
        with lock.acquired(self.directory, self._namespace, seconds):
            self._forget_gone_namespaces()
            try:
                yield
            finally:
                if not list(self.directory.glob(f"*{self._suffix}")):
                    lock.delete(self.directory, self._namespace)

    def _forget_gone_namespaces(self) -> None:
        for namespace in lock.gone_namespaces(self.directory):
            for path in self.directory.glob(f"*@{namespace}.json*"):
                with suppress(OSError):
                    path.unlink()
            lock.delete(self.directory, namespace)

    def read(self, instance: str) -> State | None:
        """The state of an instance; None if nothing is known."""
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
        found = {}
        for path in sorted(self.directory.glob(f"*{self._suffix}")):
            instance = path.name.removesuffix(self._suffix)
            if state := self.read(instance):
                found[instance] = state
        return found

    def write(self, state: State) -> None:
        """Replace the file of `state`'s instance, in one step that survives a crash. Raises StateError."""
        path = self.path(state.plan.options.instance)
        beside = path.with_name(f".{path.name}.new")
        try:
            with beside.open("w", encoding="utf-8") as file:
                json.dump(_encode(state), file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
        except OSError as error:
            with suppress(OSError):
                beside.unlink()
            raise StateError(f"{path} cannot be written: {error.strerror}; free space there") from error

    def delete(self, instance: str) -> None:
        """Forget an instance. Raises StateError where files cannot be deleted."""
        path = self.path(instance)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise StateError(f"{path} cannot be deleted: {error.strerror}") from error


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
    options |= {name: options[name].value for name in ("method", "mode", "fail", "existing", "forward")}
    return {"slot": plan.numbers.slot, "options": options, "refuse_all": plan.refuse_all}


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
    kinds = {"method": Method, "mode": Mode, "fail": Fail, "existing": Existing, "forward": Forward}
    # A file of an earlier version lacks some fields: then the plans differ, and the rules are installed again.
    options |= {name: kind(options[name]) for name, kind in kinds.items() if name in options}
    plan = make_plan(replace(Options(options["instance"]), **options), data["slot"])
    return replace(plan, refuse_all=bool(data.get("refuse_all", False)))
