"""hatchling's build hook: compiles the core for a wheel, where HATCH_BUILD_HOOK_ENABLE_CUSTOM=true asks for it.

Without that variable the wheel is pure, and nothing here is read; only for a compiled one mypyc is fetched
(`dependencies` of the hook in pyproject.toml). The wheel has the sources, too: for tracebacks, and PROXSMTP_TP_PURE.

PROXSMTP_TP_WORK names a folder that keeps what was compiled, for the next time: that of `make compiled` is build/mypyc.
"""

from __future__ import annotations

import os
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CompiledCore(BuildHookInterface[Any]):  # type: ignore[misc]  # hatchling is not in .venv
    """Adds the extensions to the files of a wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Before the wheel is made. An editable installation runs the sources, compiled or not: it stays pure."""
        if version == "editable":
            return
        sys.path.insert(0, self.root)
        from tools.compile_core import compile_core  # noqa: PLC0415  (the folder was not in the path before)

        tree, self._work = Path(self.root), tempfile.TemporaryDirectory(prefix="proxsmtp-mypyc.")
        into = Path(self._work.name, "lib")
        kept = os.environ.get("PROXSMTP_TP_WORK") or Path(self._work.name, "work")
        for path in compile_core(tree, into, Path(kept)):
            build_data["force_include"][str(path)] = str(path.relative_to(into))
        build_data["pure_python"] = False
        build_data["tag"] = tag()

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002
        """After it."""
        if version != "editable":
            self._work.cleanup()


def tag() -> str:
    """Of a wheel that is compiled here: for this Python, and for hosts with this glibc or a newer one (PEP 600).

    pip then takes the pure wheel on a host with an older glibc, where the compiled one could not be loaded.
    """
    python = f"cp{sys.version_info.major}{sys.version_info.minor}"
    platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    library, _, number = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
    if library == "glibc" and platform.startswith("linux_"):
        platform = f"manylinux_{number.replace('.', '_')}_{platform.removeprefix('linux_')}"
    return f"{python}-{python}-{platform}"
