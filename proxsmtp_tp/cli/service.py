"""proxsmtp-tp install-service and remove-service: the systemd units, for those without a package or Ansible.

install-service    writes units, the user's entry and each instance's drop-in, then enables and starts them
remove-service     ends and disables them, and deletes exactly what install-service writes

Guarantees: both are idempotent; a configuration that is wrong changes nothing; a file is replaced in one step
(rename(2)); mail, configuration and what filters keep are touched only by `remove-service --purge`.
Exit status: 0 done, 1 it did not work, 2 usage or configuration.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from proxsmtp_tp.cli import service_apply, service_first_upgrade, service_metrics, unit_owner
from proxsmtp_tp.cli import service_units as units
from proxsmtp_tp.config.reader import ConfigError, instance_name, printable, read_config
from proxsmtp_tp.config.values import parse_instance
from proxsmtp_tp.service import installed as installation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from proxsmtp_tp.config.settings import Settings

CONFIG_DIRECTORY = "etc/proxsmtp-tp"
PARTS = ("", "-rules", "-metrics")
"""What follows `proxsmtp-tp` in the names of an instance's units."""
_SYSTEM = Path("etc/systemd/system")
_HIDDEN = ("/home/", "/root/", "/run/user/", "/tmp/", "/var/tmp/")  # noqa: S108  (what the unit cannot see)
_STATE = ("var/lib/proxsmtp-tp", "var/log/proxsmtp-tp", "var/cache/proxsmtp-tp", "run/proxsmtp-tp")
# systemctl waits for the units it starts or ends: TimeoutStopSec of a long drain, and a margin.
_SYSTEMCTL_SECONDS = 600


class ServiceError(Exception):
    """It did not work. The text says why and what to do."""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add both commands."""
    install = subparsers.add_parser("install-service", help="install, enable and start the systemd units")
    remove = subparsers.add_parser("remove-service", help="stop and remove the systemd units")
    for parser, what in ((install, install_service), (remove, remove_service)):
        parser.add_argument("names", nargs="*", type=_name, metavar="NAME",
            help="only the instance of /etc/proxsmtp-tp/NAME.conf (default: all of them)")  # fmt: skip
        parser.add_argument("--instance", action="append", default=[], type=_name, metavar="NAME",
            help="the same as the argument NAME")  # fmt: skip
        parser.add_argument("--dry-run", action="store_true", help="print what would be done, and change nothing")
        parser.add_argument("--root", type=Path, default=Path("/"), metavar="DIR",
            help="write below DIR, as for a machine image, and talk to no running systemd")  # fmt: skip
        parser.set_defaults(func=run, action=what)
    install.add_argument("--metrics", metavar="ADDRESS",
        help="also serve the numbers of one instance for Prometheus, at this address (off: end that)")  # fmt: skip
    install.add_argument("--no-start", action="store_true", help="enable, but do not start")
    remove.add_argument(
        "--purge", action="store_true", help="also remove user, logs, and what filters keep in /var/lib"
    )


def run(args: argparse.Namespace) -> int:
    """Do what `args.action` says; errors become a line each and an exit status."""
    args.names = [*args.names, *args.instance]
    try:
        if os.geteuid() != 0 and not args.dry_run and args.root == Path("/"):
            raise ServiceError("only root may install units: run it with sudo, or use --dry-run")
        args.action(args)
    except ConfigError as error:
        return _complain(error.lines(), 2)
    except service_metrics.MetricsError as error:
        return _complain([str(error)], 2)
    except (ServiceError, FileNotFoundError) as error:
        return _complain([str(error)], 1)
    except OSError as error:
        return _complain([f"{error.filename or error}: {error.strerror}"], 1)
    return 0


def install_service(args: argparse.Namespace) -> None:
    """Install units and drop-ins for the instances that `args` name, or for all."""
    root: Path = args.root
    instances = {name: read_config(str(config_of(root, name))) for name in args.names or configured(root)}
    if refusal := unit_owner.refusal(root):
        raise ServiceError(refusal)
    wanted = unit_owner.files(program_path())
    for name, settings in instances.items():
        wanted |= units.instance_files(name, settings, f"/{CONFIG_DIRECTORY}/{name}.conf")
    wanted |= service_metrics.files(root, instances, args.metrics)
    changed = units.differing(root, wanted)
    stale = [path for name in instances for path in drop_ins(root, name) if str(path.relative_to(root)) not in wanted]
    for path, text in changed.items():
        _say(args, "write", root / path)
        if not args.dry_run:
            _replace(root / path, text)
    others = unit_owner.others(root)
    for old in [*others, *stale]:
        _say(args, "remove", old)
        if not args.dry_run:
            _delete(old)
    started = [unit for name, settings in instances.items() for unit in units.units_of(name, settings)]
    started += [f"proxsmtp-tp-metrics@{name}.service" for name in instances if units.metrics_path(name) in wanted]
    unwanted = [f"proxsmtp-tp-rules@{name}.service" for name, its in instances.items() if not units.wants_rules(its)]
    if args.metrics == service_metrics.OFF:
        unwanted += [f"proxsmtp-tp-metrics@{name}.service" for name in instances]
    paths = [*changed, *(str(path.relative_to(root)) for path in [*others, *stale])]
    _settle(args, ["proxsmtp-tp.target", *started], unwanted, units.affected(paths, started))
    if not args.dry_run and not args.no_start and root == Path("/"):
        _apply(instances)
    if not instances:
        print(f"no configuration yet: write /{CONFIG_DIRECTORY}/NAME.conf, then `proxsmtp-tp install-service NAME`")


def _settle(args: argparse.Namespace, enabled: list[str], unwanted: list[str], affected: list[str]) -> None:
    """Let systemd load, enable and start what was written. `unwanted`: units that are not needed any more.

    `affected`: units whose files have changed. If they run, they are restarted or reloaded.
    """
    if args.dry_run:
        print(f"would enable{'' if args.no_start else ' and start'}: {' '.join(enabled)}")
        return
    if args.root != Path("/"):
        if unwanted:
            _systemctl("--root", str(args.root), "disable", *unwanted, check=False)
        _systemctl("--root", str(args.root), "enable", *enabled)
        return
    _command("systemd-sysusers", "proxsmtp-tp.conf")
    _systemctl("daemon-reload")
    if unwanted:
        _systemctl("disable", "--now", *unwanted, check=False)
    _systemctl("enable", *enabled)
    for unit in (unit for unit in affected if _is_active(unit)):
        _apply_to(unit, start=not args.no_start)
    if not args.no_start:
        # systemd starts a failing daemon again and again: its present try may have read the old configuration, and
        # `start` would fail with it. A try that failed is still going on while ExecStopPost runs ("deactivating").
        for unit in (unit for unit in enabled if unit.startswith("proxsmtp-tp@")):
            if _state(unit) in {"activating", "deactivating"}:
                _systemctl("restart", unit)
        _systemctl("start", *enabled)
    print(f"{'enabled' if args.no_start else 'running'}: {' '.join(enabled)}")


def _apply(instances: Mapping[str, Settings]) -> None:
    """Apply changes without a changed file: another version, another configuration, rules that differ."""
    for name, settings in instances.items():
        for action in service_apply.actions(name, settings):
            print(f"{action.verb} {action.unit}: {action.why}", flush=True)
            _change(action.verb, action.unit)
        if units.wants_rules(settings):  # also if an older version started the rules without it, or it runs old code
            _systemctl("restart", f"proxsmtp-tp-rules-watch@{name}.service", check=False)


def _apply_to(unit: str, *, start: bool) -> None:
    """Apply a change to a running unit: rules are replaced in one step, a daemon is restarted."""
    how = "reload-or-restart" if unit.startswith("proxsmtp-tp-rules@") else "restart"
    if not start:
        print(f"{unit} runs as before: `systemctl {how} {unit}` applies the change")
        return
    print(f"{how} {unit}", flush=True)
    _change(how, unit)


def _change(verb: str, unit: str) -> None:
    """Restart or reload a unit that runs."""
    if verb == "restart" and unit.startswith("proxsmtp-tp@"):
        with service_first_upgrade.sockets_kept(unit):
            _systemctl(verb, unit)
    else:
        _systemctl(verb, unit)


def _is_active(unit: str) -> bool:
    return _command("systemctl", "is-active", "--quiet", unit, check=False) == 0


def _state(unit: str) -> str:
    """ActiveState of org.freedesktop.systemd1(5)."""
    words = ("systemctl", "show", "--property=ActiveState", "--value", unit)
    return subprocess.run(words, capture_output=True, text=True, timeout=_SYSTEMCTL_SECONDS, check=False).stdout.strip()


def remove_service(args: argparse.Namespace) -> None:
    """One instance, or all and the units themselves."""
    root: Path = args.root
    names = args.names or sorted({*configured(root), *installed(root)})
    unwanted = [f"proxsmtp-tp{part}@{name}.service" for name in names for part in PARTS]
    files = [path for name in names for path in drop_ins(root, name)]
    if not args.names:
        unwanted.append("proxsmtp-tp.target")
        files += unit_owner.removable(root)
    present = [path for path in files if path.exists()]
    if not args.dry_run and unit_owner.present(root):
        _end(root, unwanted)
        if root == Path("/"):
            _end_refusal(names)
    for path in present:
        _say(args, "remove", path)
        if not args.dry_run:
            _delete(path)
    if not args.dry_run and root == Path("/") and present:
        _systemctl("daemon-reload")
        _systemctl("reset-failed", *unwanted, check=False)
    if args.purge and not args.names:
        _purge(args, root)
    if not present:
        print("there was nothing to remove")


def _end(root: Path, names: list[str]) -> None:
    """Daemons before rules, so that nothing passes unfiltered while they drain; a unit unknown here is no error."""
    if root != Path("/"):
        _systemctl("--root", str(root), "disable", *names, check=False)
        return
    for part in ("proxsmtp-tp-metrics@", "proxsmtp-tp@", "proxsmtp-tp-rules@", "proxsmtp-tp.target"):
        _systemctl("disable", "--now", *(name for name in names if name.startswith(part)), check=False)


def _end_refusal(names: list[str]) -> None:
    """Remove rules that only refuse mail. A unit that is stopped between two tries does not run its ExecStop."""
    from proxsmtp_tp.gateway import install  # noqa: PLC0415 - netlink is loaded only where there are rules
    from proxsmtp_tp.gateway.state import Store  # noqa: PLC0415

    store = Store()
    for name in names:
        path = config_of(Path("/"), name)
        try:
            instance = read_config(str(path)).instance
        except ConfigError:
            instance = instance_name(str(path))
        state = store.read(instance)
        if state and state.plan.refuse_all:
            install.remove(instance, store)


def _purge(args: argparse.Namespace, root: Path) -> None:
    for folder in _STATE:
        if (root / folder).exists():
            _say(args, "remove", root / folder)
            if not args.dry_run:
                shutil.rmtree(root / folder)
    if not args.dry_run and root == Path("/") and not installation.packaged():
        _command("userdel", units.USER, check=False)


def program_path() -> str:
    """The program of this installation, which the units start. Raises ServiceError if the unit could not see it."""
    path = installation.command()
    if not path.is_file():
        raise ServiceError(f"{path} does not exist: install proxsmtp-tp with pip, for instance in a venv under /opt")
    if str(path).startswith(_HIDDEN):
        raise ServiceError(f"{path} is hidden from the hardened unit: install proxsmtp-tp under /opt or /usr/local")
    return units.PROGRAM if Path(units.PROGRAM).exists() and Path(units.PROGRAM).samefile(path) else str(path)


def config_of(root: Path, name: str) -> Path:
    """The configuration file of an instance."""
    return root / CONFIG_DIRECTORY / f"{name}.conf"


def configured(root: Path) -> list[str]:
    """The instances that have a configuration file."""
    return sorted(path.stem for path in (root / CONFIG_DIRECTORY).glob("*.conf"))


def installed(root: Path) -> set[str]:
    """The instances that have a drop-in of ours, whether or not their configuration is still there."""
    found = (root / _SYSTEM).glob(f"proxsmtp-tp*@*.service.d/{units.DROP_IN}")
    return {path.parent.name.partition("@")[2].removesuffix(".service.d") for path in found}


def drop_ins(root: Path, name: str) -> list[Path]:
    """The drop-ins of ours that an instance has."""
    places = (root / _SYSTEM / f"proxsmtp-tp{part}@{name}.service.d" / units.DROP_IN for part in PARTS)
    return [path for path in places if path.exists()]


def _name(text: str) -> str:
    try:
        return parse_instance(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _replace(path: Path, text: str) -> None:
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.new")
    beside.write_text(text, encoding="utf-8")
    beside.chmod(0o644)
    beside.replace(path)


def _delete(path: Path) -> None:
    path.unlink()
    if path.parent.suffix == ".d" and path.parent.name != "sysusers.d":
        with suppress(OSError):  # the folder also has a drop-in of the administrator
            path.parent.rmdir()


def _systemctl(*arguments: str, check: bool = True) -> None:
    _command("systemctl", *arguments, check=check)


def _command(*words: str, check: bool = True) -> int:
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=_SYSTEMCTL_SECONDS, check=False)
    except FileNotFoundError:
        raise ServiceError(f"{words[0]} is missing: this machine does not run systemd") from None
    except subprocess.TimeoutExpired:
        raise ServiceError(
            f"`{' '.join(words)}` takes longer than {_SYSTEMCTL_SECONDS} s: look with `systemctl status`"
        ) from None
    if check and done.returncode != 0:
        said = " ".join((done.stderr or done.stdout).split())
        raise ServiceError(f"`{' '.join(words)}` did not work: {said}")
    return done.returncode


def _say(args: argparse.Namespace, what: str, path: Path) -> None:
    print(f"{'would ' if args.dry_run else ''}{what} {path}")


def _complain(lines: list[str], status: int) -> int:
    for line in lines:
        print(f"proxsmtp-tp: {printable(line)}", file=sys.stderr)
    return status
