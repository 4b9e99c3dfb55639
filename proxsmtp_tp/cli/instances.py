"""Which instance a command means: `-f FILE`, `--instance NAME`, or neither. Every command asks `choose`.

neither               the only one with a file in /etc/proxsmtp-tp; several or none: an error that says what to do
--instance NAME       /etc/proxsmtp-tp/NAME.conf, or the file there whose Instance directive is NAME
-f FILE               that file
-f and --instance     FILE, if its instance is NAME; otherwise an error: no option renames an instance

The name of an instance is its Instance directive. Without one it is the name of its file (`reader.instance_name`).
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING

from proxsmtp_tp.config.reader import ConfigError, Problem, instance_in, load_config, printable
from proxsmtp_tp.config.values import parse_instance

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from proxsmtp_tp.config.settings import Settings

DIRECTORY = Path("/etc/proxsmtp-tp")
_SUFFIX = ".conf"


@dataclass(frozen=True, slots=True)
class Instance:
    """One instance. The file at `path` may be missing or wrong."""

    name: str
    path: str


class InstanceError(ConfigError):
    """No instance can be chosen. One line says why and what to type."""

    def __init__(self, text: str, exit_code: int = 2) -> None:
        super().__init__("", [Problem(0, text)], exit_code)

    def lines(self) -> list[str]:
        """The line, without a file name: the error is not in a file."""
        return [printable(problem.text) for problem in self.problems]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add `-f` and `--instance`; the values are `args.file` and `args.instance`."""
    parser.add_argument(
        "-f", "--file", metavar="FILE", help=f"the configuration file (default: the only one in {DIRECTORY})"
    )
    parser.add_argument("--instance", metavar="NAME", help=f"the instance of {DIRECTORY}/NAME{_SUFFIX}")


def choose(file: str | None, name: str | None, *, file_needed: bool = True, directory: Path | None = None) -> Instance:
    """The instance that these options mean. The file is not checked: `load_config` does that.

    `file_needed`: False where a name is enough, because rules and daemons may be there without their configuration
    file. `directory` is for tests. Raises InstanceError: exit code 2, or 1 if the directory cannot be read.
    """
    folder = DIRECTORY if directory is None else directory
    if file is not None:
        return _of_file(file, name)
    if name is not None:
        return _of_name(name, folder, file_needed)
    paths = configured(folder)
    if not paths:
        raise InstanceError(
            f"no instance is configured: write {folder}/NAME{_SUFFIX} (proxsmtpd.conf(5), EXAMPLES),"
            " or name a configuration file with -f FILE"
        )
    if len(paths) > 1:
        names = ", ".join(path.stem for path in paths)
        raise InstanceError(f"several instances are configured, choose one with --instance NAME: {names}")
    return Instance(instance_in(str(paths[0])), str(paths[0]))


def chosen_settings(args: argparse.Namespace) -> Settings:
    """The settings of the instance that the options of `add_options` mean. Raises ConfigError."""
    return load_config(choose(args.file, args.instance).path).settings


def prints_config_errors(run: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """A command that prints a ConfigError on standard error and returns its exit code."""

    @wraps(run)
    def printing(args: argparse.Namespace) -> int:
        try:
            return run(args)
        except ConfigError as error:
            print(error, file=sys.stderr)
            return error.exit_code

    return printing


def configured(directory: Path | None = None) -> list[Path]:
    """The configuration files of all instances, by name. Raises InstanceError if the directory cannot be read."""
    folder = DIRECTORY if directory is None else directory
    try:
        with os.scandir(folder) as entries:
            found = [Path(entry) for entry in entries if _is_configuration(entry)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise InstanceError(f"{folder} cannot be read: {error.strerror}: run this as root, or use -f FILE", 1) from None
    return sorted(found)


def _is_configuration(entry: os.DirEntry[str]) -> bool:
    return entry.name.endswith(_SUFFIX) and not entry.name.startswith(".") and not entry.is_dir()


def _of_file(file: str, name: str | None) -> Instance:
    its_own = instance_in(file)
    if name is None or name == its_own:
        return Instance(its_own, file)
    if not Path(file).exists():
        return Instance(_valid(name), file)  # no other instance has this file
    if name == Path(file).stem:
        return Instance(its_own, file)
    raise InstanceError(
        f"{file} is the configuration of instance {its_own}, not {name}: use only one of -f, --instance"
    )


def _of_name(name: str, folder: Path, file_needed: bool) -> Instance:
    paths = configured(folder)
    # A file name comes first: it is the name of the systemd units.
    for path in [*(path for path in paths if path.stem == name), *(p for p in paths if instance_in(str(p)) == name)]:
        return Instance(instance_in(str(path)), str(path))
    valid = _valid(name)
    if not file_needed:
        return Instance(valid, str(folder / f"{name}{_SUFFIX}"))
    others = f"configured: {', '.join(path.stem for path in paths)}" if paths else "no instance is configured"
    raise InstanceError(f"there is no {folder}/{name}{_SUFFIX}; {others}")


def _valid(name: str) -> str:
    try:
        return parse_instance(name)
    except ValueError as error:
        raise InstanceError(f"--instance: {error}") from None
