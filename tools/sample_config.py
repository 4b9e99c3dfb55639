"""The commented sample configuration: `python -m tools.sample_config`. All directives of their table."""

from __future__ import annotations

import sys
import textwrap

from proxsmtp_tp.config.directives import DIRECTIVES, Directive

EXAMPLE = {
    "TransparentProxy": "client",
    "FilterCommand": "/etc/proxsmtp-tp/filters/my-filter",
    "User": "proxsmtp-tp",
    "RuleInterface": "eth1",
}
"""What a gateway needs at least. The other directives are comments."""
_HEAD = """\
# Sample configuration of proxsmtp-tp: proxsmtpd.conf(5) describes every directive.
# Copy it to /etc/proxsmtp-tp/NAME.conf, change it, then type
#     proxsmtp-tp check-config -f /etc/proxsmtp-tp/NAME.conf
#     proxsmtp-tp install-service NAME
# A comment is a line of its own. A line that begins with #Name shows the default, or how the value is written.
"""


def text() -> str:
    """The whole file."""
    return _HEAD + "".join(f"\n{_row(row)}" for row in DIRECTIVES)


def _row(row: Directive) -> str:
    about = textwrap.wrap(f"{row.text} Default: {row.shown_default}.", 98, break_on_hyphens=False)
    lines = "".join(f"# {line}\n" for line in about)
    if row.name in EXAMPLE:
        return f"{lines}{row.name}: {EXAMPLE[row.name]}\n"
    return f"{lines}#{row.name}: {default(row) or row.kind.syntax}\n"


def default(row: Directive) -> str:
    """The default as it could be written in a file; empty where there is none."""
    if row.default is None or row.default == () or row.field == "instance":
        return ""
    return row.kind.show(row.default)


if __name__ == "__main__":
    sys.stdout.write(text())
