"""The systemd files of the service, as values: which file holds what, for whichever instances there are.

The units are plain files under systemd/, which can also be copied by hand. The path of the program depends on the host;
everything that depends on a configuration is in a drop-in of that instance. Pure, except that it reads the files of
this installation. Sources: systemd.unit(5), systemd.exec(5), sysusers.d(5).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from proxsmtp_tp.config.addresses import InetAddress
from proxsmtp_tp.config.settings import RuleFail, RuleMode, TransparentProxy

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from proxsmtp_tp.config.settings import Settings

_PACKAGE = Path(__file__).resolve().parent.parent
PLACES = (_PACKAGE / "data" / "systemd", _PACKAGE.parent / "systemd")
UNITS = (
    "proxsmtp-tp@.service",
    "proxsmtp-tp-rules@.service",
    "proxsmtp-tp-rules-watch@.service",
    "proxsmtp-tp-metrics@.service",
    "proxsmtp-tp.target",
)
SYSUSERS = "proxsmtp-tp.sysusers"
USER = "proxsmtp-tp"
PROGRAM = "/usr/local/bin/proxsmtp-tp"
"""How the files under systemd/ name the program."""
SHARED_SPOOL = "/var/lib/proxsmtp-tp/spool"
"""The TempDirectory of the examples: systemd makes it for the unit's own user (StateDirectory)."""
DROP_IN = "10-configuration.conf"
PRIVILEGED_PORTS = 1024  # net.ipv4.ip_unprivileged_port_start, unless somebody changed it
STOP_MARGIN = 15
"""Seconds after DrainTimeOut until systemd kills the rest: workers need up to 5 of them (`service.worker`)."""
_NOTE = "# Written by `proxsmtp-tp install-service` from {config}. Own changes belong in another file beside it.\n"


def unit_files(program: str) -> dict[str, str]:
    """The files that serve every instance, by path below the root. Raises FileNotFoundError if incomplete."""
    files = {f"etc/systemd/system/{name}": read(name).replace(PROGRAM, program) for name in UNITS}
    return files | {"etc/sysusers.d/proxsmtp-tp.conf": read(SYSUSERS)}


def instance_files(name: str, settings: Settings, config: str) -> dict[str, str]:
    """The drop-ins of one instance, by path below the root. `name` is the name of the file without `.conf`."""
    note = _NOTE.format(config=config)
    found = {f"etc/systemd/system/proxsmtp-tp@{name}.service.d/{DROP_IN}": note + daemon_drop_in(settings)}
    if wants_rules(settings) and settings.rule_fail is RuleFail.OPEN:
        found[f"etc/systemd/system/proxsmtp-tp-rules@{name}.service.d/{DROP_IN}"] = note + rules_drop_in(name)
    return found


def daemon_drop_in(settings: Settings) -> str:
    """The settings of the unit that this configuration adds or changes."""
    lines = ["[Service]", f"TimeoutStopSec={int(settings.drain_time_out) + STOP_MARGIN}"]
    writable = ["/tmp/", "/var/tmp/", f"{SHARED_SPOOL}/"]  # noqa: S108 (by PrivateTmp and StateDirectory of the unit)
    if settings.user not in {None, USER}:
        # systemd would give the shared directory to this user, and take it from the others.
        lines += [f"User={settings.user}", "Group=", "StateDirectory=", "StateDirectory=proxsmtp-tp/%i"]
        del writable[-1]
    if not f"{settings.temp_directory}/".startswith(tuple(writable)):
        lines.append(_read_write(settings.temp_directory))
    kept = settings.quarantine_directory
    if kept is not None and not f"{kept}/".startswith((*writable, f"/var/lib/proxsmtp-tp/{settings.instance}/")):
        lines.append(_read_write(kept))
    if needed := capabilities(settings):
        # In a user namespace of its own a capability would not count on the machine's network.
        names = " ".join(needed)
        lines += [f"CapabilityBoundingSet={names}", f"AmbientCapabilities={names}", "PrivateUsers=no"]
    return "\n".join(lines) + "\n"


def _read_write(path: str) -> str:
    """The setting that lets the daemon write in a directory. With "-" it also starts if the directory is missing."""
    quoted = path.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")  # systemd.syntax(7), systemd.unit(5)
    return f'ReadWritePaths="-{quoted}"'


def rules_drop_in(name: str) -> str:
    """RuleFail open: the rules stop with the daemon. The daemon has Wants= for its rules, so they start with it.

    Not BindsTo=: a restart would remove the rules, and with them the connections of the old workers (tproxy).
    """
    return f"[Unit]\nStopPropagatedFrom=proxsmtp-tp@{name}.service\nAfter=proxsmtp-tp@{name}.service\n"


def metrics_file(name: str, settings: Settings, config: str, address: str) -> tuple[str, str]:
    """The drop-in of the metrics of an instance, which are served at this address: path below the root, and text."""
    lines = ["[Service]", f"Environment=LISTEN={address}"]
    if settings.user not in {None, USER}:
        lines += ["SupplementaryGroups=", f"SupplementaryGroups={settings.user}"]
    return metrics_path(name), _NOTE.format(config=config) + "\n".join(lines) + "\n"


def metrics_path(name: str) -> str:
    """The path of that drop-in below the root."""
    return f"etc/systemd/system/proxsmtp-tp-metrics@{name}.service.d/{DROP_IN}"


def capabilities(settings: Settings) -> list[str]:
    """Capabilities that systemd must give the daemon, which starts as its own user."""
    found = []
    if settings.rule_mode is RuleMode.TPROXY or settings.transparent_proxy is TransparentProxy.FULL:
        found.append("CAP_NET_RAW")
    if any(isinstance(where, InetAddress) and where.port < PRIVILEGED_PORTS for where in settings.listen):
        found.append("CAP_NET_BIND_SERVICE")
    return found


def wants_rules(settings: Settings) -> bool:
    """Whether install-rules would find something to do."""
    return bool(settings.rule_interface) or settings.rule_local


def units_of(name: str, settings: Settings) -> list[str]:
    """The units to enable for one instance."""
    rules = [f"proxsmtp-tp-rules@{name}.service"] if wants_rules(settings) else []
    return [*rules, f"proxsmtp-tp@{name}.service"]


def read(name: str) -> str:
    """The text of one of our systemd files. Raises FileNotFoundError for an incomplete installation."""
    for place in PLACES:
        if (place / name).is_file():
            return (place / name).read_text(encoding="utf-8")
    raise FileNotFoundError(f"{name} is missing from this installation of proxsmtp-tp: install it again")


def differing(root: Path, wanted: Mapping[str, str]) -> dict[str, str]:
    """The files that are missing on the host, or differ."""
    return {path: text for path, text in wanted.items() if _text(root / path) != text}


def affected(paths: Iterable[str], units: Iterable[str]) -> list[str]:
    """The units (`proxsmtp-tp@NAME.service`) to which one of these changed files belongs, rules last.

    Rules depend on the same configuration as the daemon: they are looked at, too, when its drop-in changes.
    """
    changed = {Path(path).name if path.endswith(UNITS) else Path(path).parent.name.removesuffix(".d") for path in paths}
    found = []
    for unit in units:
        kind, _, name = unit.partition("@")
        daemons = {"proxsmtp-tp@.service", f"proxsmtp-tp@{name}"}
        own = daemons if kind == "proxsmtp-tp" else daemons | {f"{kind}@.service", unit}
        if own & changed:
            found.append(unit)
    return sorted(found, key=lambda unit: not unit.startswith("proxsmtp-tp@"))


def _text(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None
