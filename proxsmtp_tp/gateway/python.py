"""The command that runs a module of ours in another process with this interpreter.

This file is also the script of that process: it finds the module beside itself. `-m` would not find a program that a
package installs outside the interpreter's own path (/usr/lib/proxsmtp-tp/site).
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path


def module_command(name: str, *arguments: str) -> list[str]:
    """The command that runs the module `name` as a program, isolated if this process is (python3(1), -I).

    -P: without it the current directory could be searched for modules, and other users may be able to write there.
    -B: the package's program writes no compiled modules, which a removal of the package would leave behind.
    """
    isolated = "-IB" if sys.flags.dont_write_bytecode else "-I"
    return [sys.executable, isolated if sys.flags.isolated else "-P", str(Path(__file__).resolve()), name, *arguments]


if __name__ == "__main__":
    folder = str(Path(__file__).resolve().parents[2])
    if folder not in sys.path:
        sys.path.insert(0, folder)
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
