"""The result of one step, and the input of every step."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from proxsmtp_tp.config.settings import Settings
from proxsmtp_tp.gateway.doctor.fixes import NONE, Fix, fix, words
from proxsmtp_tp.gateway.doctor.unit import unit_name
from proxsmtp_tp.gateway.plan import Plan
from proxsmtp_tp.gateway.state import DIRECTORY, Store


class State(Enum):
    """What a finding means; the value is how it is printed."""

    OK = "ok"
    KEPT = "kept"
    """A filter kept a mail of the probe, with an SMTP code of its own: it works, and this mail did not pass."""
    UNSEEN = "?"
    """It could not be examined."""
    WRONG = "WRONG"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one step. `fix` is a shell command of `fixes`; empty if the administrator must decide.

    `other`: KEPT or UNSEEN, which are neither ok nor wrong; then `ok` is False.
    """

    step: str
    ok: bool
    text: str
    fix: Fix = NONE
    other: State | None = None

    @property
    def state(self) -> State:
        """What it means."""
        return self.other or (State.OK if self.ok else State.WRONG)

    @property
    def wrong(self) -> bool:
        """Whether something must be fixed."""
        return self.state is State.WRONG


def unseen(step: str, text: str) -> Finding:
    """The finding of a step that could not be examined, with the reason."""
    return Finding(step, False, text, other=State.UNSEEN)


def _no_status() -> None:
    return None


def _no_authorities() -> dict[bool, bytes]:
    return {}


def _nobody_is_told(_kind: str, _number: int) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Setup:
    """What is examined. `config` is the configuration file as the administrator named it; the fixes use it.

    `status` asks the daemon for its status (`service.status`); None: it does not answer. `may_be_a_filters`: whether a
    filter may have made a reply, because the proxy makes none like it. `needs`: capabilities that its unit must give.
    """

    settings: Settings
    config: str
    plan: Plan
    store: Store
    status: Callable[[], dict[str, Any] | None] = _no_status
    may_be_a_filters: Callable[[str], bool] = bool
    needs: tuple[str, ...] = ()
    filter_asker: str = ""
    """The module of a program that asks filters who they are, as the daemon's user (`filter_view`)."""
    announce: Callable[[str, int], None] = _nobody_is_told
    """Tell the daemon of a connection that doctor is about to make: `port` and the port that it comes from, or `pid`
    and the process id. Raises nothing."""
    authorities: Callable[[], dict[bool, bytes]] = _no_authorities
    """The certificates of the daemon's CAs in PEM, by whether clients trust it (`TlsCa`) or nobody may."""
    step_seconds: float = 10.0
    """Seconds that a step may take, so that an answer comes soon. The steps run at the same time."""

    def command(self, subcommand: str, option: str = "-f", value: str = "") -> Fix:
        """One of our own commands for this configuration, or with another option."""
        found = ["proxsmtp-tp", subcommand, option, value or self.config]
        if subcommand.endswith("-rules") and self.store.directory != DIRECTORY:
            found += ["--state-dir", str(self.store.directory)]
        return words(*found)

    @property
    def intercepts(self) -> bool:
        """Whether rules redirect connections to the daemon; otherwise clients connect to it."""
        return bool(self.plan.options.interfaces) or self.plan.options.local

    @property
    def probe_port(self) -> int | None:
        """The port of the probe's mails, which begin in clear; None: all intercepted ports are of TlsWrapped."""
        wrapped = self.settings.tls_wrapped if self.settings.tls else ()
        return next((port for port in self.plan.options.ports if port not in wrapped), None)

    @property
    def unit(self) -> str | None:
        """The daemon's unit, without `.service`; None: systemd does not run, or has none for this configuration."""
        return unit_name(self.config, self.plan.options.instance)

    @property
    def restart(self) -> Fix:
        """The command that restarts the daemon: by its unit if there is one."""
        if self.unit is not None:
            return fix("restart, unit", unit=self.unit)
        pid = (self.status() or {}).get("pid")
        return fix("restart, by hand", pid=pid, start=self.start) if pid else self.start

    @property
    def start(self) -> Fix:
        """The command that starts it."""
        if self.unit is not None:
            return fix("start, unit", unit=self.unit)
        return fix("start, by hand", file=self.config)

    @property
    def reload(self) -> Fix:
        """The command for a reload."""
        if self.unit is not None:
            return fix("reload, unit", unit=self.unit)
        return fix("reload, by hand", file=self.config)

    @property
    def install_service(self) -> Fix:
        """The command that gives its unit what the configuration needs, and applies it; empty without a unit."""
        return fix("unit", instance=self.unit.partition("@")[2]) if self.unit is not None else NONE


Look = Callable[[Setup], Iterable[Finding]]


def setting(name: str) -> str:
    """The value of a system setting (net.ipv4.ip_forward); empty if the kernel has no such setting."""
    try:
        return setting_path(name).read_text(encoding="ascii").strip()
    except OSError:
        return ""


def setting_path(name: str) -> Path:
    """The file of a setting."""
    return Path("/proc/sys", *split_setting(name))


def split_setting(name: str) -> list[str]:
    """The parts of a setting's name. As in sysctl(8), a slash in a part means a dot (eth0/100)."""
    return [part.replace("/", ".") for part in name.split(".")]


def setting_name(*parts: str) -> str:
    """The name for sysctl(8), from parts that may contain dots (VLAN interfaces)."""
    return ".".join(part.replace(".", "/") for part in parts)
