"""Compiles the modules that pyproject.toml names in [tool.proxsmtp-tp] `compiled` with mypyc, into one extension.

`make compiled` and the build of a compiled wheel do this. The modules stay where they are: the extension lies beside
the package, and a small one that only names it beside each module, where Python finds it before the .py.
"""

from __future__ import annotations

import os
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

NAME = "proxsmtp_tp"
"""The extension's file is NAME__mypyc.*.so, beside the package."""


def modules(tree: Path) -> list[str]:
    """The paths of the compiled modules, relative to `tree`. No __init__.py: packages stay Python.

    ValueError: the list names what does not exist.
    """
    named = tomllib.loads((tree / "pyproject.toml").read_text())["tool"]["proxsmtp-tp"]["compiled"]
    found = []
    for name in named:
        path = tree / NAME / name
        if not path.exists():
            raise ValueError(f"pyproject.toml, [tool.proxsmtp-tp] compiled: there is no {NAME}/{name}")
        paths = [each for each in path.glob("*.py") if each.name != "__init__.py"] if path.is_dir() else [path]
        found += [str(each.relative_to(tree)) for each in paths]
    return sorted(found)


def compile_core(tree: Path, into: Path, work: Path) -> list[Path]:
    """Compile the core of `tree`; the extensions go below `into`, what is kept for the next time into `work`.

    Returns the extensions. What has not changed is not compiled again, also for another `tree` with the same `work`.
    SystemExit: mypyc or the compiler refuses it.
    """
    from mypy.version import __version__  # noqa: PLC0415  (only who compiles has it)
    from mypyc.build import mypycify  # noqa: PLC0415

    level = os.environ.get("OPT_LEVEL", "3")
    before = Path.cwd()
    os.chdir(tree)  # mypyc names modules by their paths
    try:
        extensions = mypycify(
            ["--config-file", "pyproject.toml", "--no-error-summary", *modules(tree)],
            opt_level=level,
            debug_level="0",
            multi_file=True,
            group_name=NAME,
            target_dir=str(work),
        )
        _repair_slices(work / "bytes_ops.c")
        command = _command(extensions, max(path.stat().st_mtime_ns for path in work.glob("*.h")))
        kind = f"{sys.implementation.cache_tag}-{__version__}-O{level}"
        command.build_lib, command.build_temp = str(into), str(work / "objects" / kind)
        command.ensure_finalized()
        command.run()
    finally:
        os.chdir(before)
    return [Path(each) for each in command.get_outputs()]


def _repair_slices(source: Path) -> None:
    """Make data[5:3] the empty string, as in Python: mypyc 2.4 raises SystemError.

    SystemExit: mypyc's text is another one. Then look what its CPyBytes_GetSlice does, and change this.
    """
    wrong, right = "slice_len = endn - startn;", "slice_len = endn > startn ? endn - startn : 0;"
    text = source.read_text()
    if wrong not in text:
        raise SystemExit(f"{source.name} of mypyc has no '{wrong}': see tools/compile_core.py, _repair_slices")
    source.write_text(text.replace(wrong, right))


def _command(extensions: list[Any], headers: int) -> Any:
    """setuptools' build_ext, with as many compilers at a time as there are processors.

    An object that is newer than its source and than `headers` (nanoseconds, as st_mtime_ns) is not made again.
    """
    from setuptools import Distribution  # noqa: PLC0415
    from setuptools.command.build_ext import build_ext  # noqa: PLC0415

    class Parallel(build_ext):  # type: ignore[misc]  # setuptools has no types
        def build_extensions(self) -> None:
            one = self.compiler.compile

            def compiled(source: str, output_dir: str, **options: Any) -> list[str]:
                objects: list[str] = self.compiler.object_filenames([source], output_dir=output_dir)
                if _is_newer(Path(*objects), max(Path(source).stat().st_mtime_ns, headers)):
                    return objects
                return list(one([source], output_dir=output_dir, **options))

            def many(sources: list[str], **options: Any) -> list[str]:
                with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
                    objects = pool.map(lambda source: compiled(source, **options), sources)
                    return [each for found in objects for each in found]

            self.compiler.compile = many
            super().build_extensions()

    return Parallel(Distribution({"name": NAME, "ext_modules": extensions}))


def _is_newer(file: Path, moment: int) -> bool:
    return file.exists() and file.stat().st_mtime_ns > moment
