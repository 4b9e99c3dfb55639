"""Writes what the role says of each directive, from the table in proxsmtp_tp/config/directives/.

`python ansible/variables.py` after a change of the table; tests/unit/ansible notices when that was forgotten. Three
files: vars/main/directives.yml (name and variable), defaults/main/directives.yml (documented defaults), and the end of
meta/argument_specs.yml (what Ansible checks).
"""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from proxsmtp_tp.config import values
from proxsmtp_tp.config.directives.table import DIRECTIVES

if TYPE_CHECKING:
    from proxsmtp_tp.config.directives.directive import Directive

ROLE = Path(__file__).resolve().parent / "roles/proxsmtp_tp"
OWN_DEFAULTS = {"User": "proxsmtp-tp", "TransparentProxy": "client"}
"""Where a gateway made by the role differs from the daemon's defaults."""
MARK = "      # From here on written by ansible/variables.py.\n"
_LISTS = (values.LISTEN, values.PORTS, values.NETWORKS, values.INTERFACES)
_NUMBERS = (values.SECONDS, values.SECONDS_OR_OFF, values.PORT)
_WIDTH = 110  # with the indentation below 120


def files() -> dict[Path, str]:
    """The text of each file, by path."""
    spec = ROLE / "meta/argument_specs.yml"
    return {
        ROLE / "vars/main/directives.yml": names(),
        ROLE / "defaults/main/directives.yml": defaults(),
        spec: spec.read_text().partition(MARK)[0] + MARK + specification(),
    }


def variable(row: Directive) -> str:
    """The variable's name without its prefix: the directive's, in the manner of Ansible."""
    return {"skip_authenticated": "skip"}.get(row.field, row.field)


def kind(row: Directive) -> str:
    """The type that Ansible checks."""
    if row.kind in _LISTS or row.kind.repeatable:
        return "list"
    if row.kind is values.SWITCH:
        return "bool"
    return "int" if row.kind in _NUMBERS or row.kind.syntax[:1].isdigit() else "str"


def names() -> str:
    """Every directive, in the order in which the file has them."""
    rows = (f"  - {{name: {row.name}, field: {variable(row)}{_lines(row)}}}\n" for row in DIRECTIVES)
    head = (
        "---\n"
        "# Written by ansible/variables.py. `name` in the file, `field` in the variables of this role; `lines`: the\n"
        "# file has a line for each value, because a value may have blanks and commas.\n"
    )
    return f"{head}proxsmtp_tp_directives:\n{''.join(rows)}"


def _lines(row: Directive) -> str:
    several_in_a_line = re.fullmatch(r"\w+ \.\.\.", row.kind.syntax)  # `port ...`
    return ", lines: true" if row.kind.repeatable and not several_in_a_line else ""


def defaults() -> str:
    """The variables with their documentation."""
    text = (
        "---\n"
        "# Written by ansible/variables.py. Directives of proxsmtpd.conf(5), for every instance; what an instance has\n"
        "# in proxsmtp_tp_instances overrides them. Nothing (null) leaves one out: the default named here holds.\n"
        "\n"
    )
    for row in DIRECTIVES:
        words = f"{row.name}: {row.text} Default: {row.shown_default}."
        text += "".join(f"# {line}\n" for line in textwrap.wrap(words, _WIDTH))
        text += f"proxsmtp_tp_{variable(row)}: {OWN_DEFAULTS.get(row.name, '')}".rstrip() + "\n"
    return text


def specification() -> str:
    """What Ansible checks."""
    text = ""
    for row in DIRECTIVES:
        text += f"      proxsmtp_tp_{variable(row)}:\n        type: {kind(row)}\n"
        text += "        elements: str\n" if kind(row) == "list" else ""
        text += f"        default: {OWN_DEFAULTS[row.name]}\n" if row.name in OWN_DEFAULTS else ""
        text += "        description: >-\n"
        words = f"{row.name}: {row.text} The daemon's default: {row.shown_default}."
        text += "".join(f"          {line}\n" for line in textwrap.wrap(words, _WIDTH - 10))
    return text


if __name__ == "__main__":
    for path, written in files().items():
        path.write_text(written)
