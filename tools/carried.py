"""The Python dependencies of a package: taken from the release, or carried in /usr/lib/proxsmtp-tp/site.

A dependency of pyproject.toml comes from the release where the release has it (as python3-NAME) in a version that the
project accepts. The others are carried.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9_.-]+)>=(?P<version>[0-9.]+)")
_DEBIAN_NAMES = {"python-iptables": "python3-iptables"}
"""Names of packages that are not python3-NAME."""
_LOOK = """
look() {
    found=$(apt-cache show --no-all-versions "$1" 2>/dev/null | sed -n 's/^Version: //p')
    if [ -n "$found" ] && dpkg --compare-versions "$found" ge "$2"; then echo yes; else echo no; fi
}
"""


@dataclass(slots=True)
class Needs:
    """`depends`: for Depends of the package. `carried`: for pip, without and with a compiler."""

    depends: list[str] = field(default_factory=list)
    carried: list[str] = field(default_factory=list)


def sort_out(requirements: Iterable[str], inside: Callable[[str], str]) -> Needs:
    """Which of these the release has. `inside`: runs a script in its root, and returns what it writes.

    Raises ValueError for a requirement that says more than a name and a least version.
    """
    needs, wanted = Needs(), []
    for requirement in requirements:
        read = _REQUIREMENT.fullmatch(requirement.replace(" ", ""))
        if read is None:
            raise ValueError(f"{requirement}: only NAME>=VERSION can be compared with a package")
        package = _DEBIAN_NAMES.get(read["name"], f"python3-{read['name'].lower()}")
        wanted.append((requirement, package, f"{read['version']}~"))
    script = _LOOK + "\n".join(f"look {package} {least}" for _, package, least in wanted)
    answers = inside(script).split()
    for (requirement, package, least), answer in zip(wanted, answers, strict=True):
        if answer == "yes":
            needs.depends.append(f"{package} (>= {least})")
        else:
            needs.carried.append(requirement)
    return needs
