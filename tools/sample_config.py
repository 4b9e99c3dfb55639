"""The commented sample configuration: `python -m tools.sample_config`. All directives of their table."""

from __future__ import annotations

import sys
import textwrap
from typing import TYPE_CHECKING

from proxsmtp_tp.config.directives.table import DIRECTIVES

if TYPE_CHECKING:
    from proxsmtp_tp.config.directives.directive import Directive

EXAMPLE = {
    "TransparentProxy": "client",
    "FilterCommand": "/etc/proxsmtp-tp/filters/my-filter",
    "FilterDefault": "defer",
    "User": "proxsmtp-tp",
    "RuleInterface": "eth1",
}
"""What a gateway needs at least. The other directives are comments."""
WITHOUT_DEFAULT = {
    "Filter": "virus clamd /run/clamav/clamd.ctl",
    "FilterWait": "30",
    "AnswerWithin": "540",
    "Hostname": "gateway.example",
    "MilterMacro": "daemon_name gateway.example",
    "QuarantineDirectory": "/var/lib/proxsmtp-tp/quarantine",
    "KeepRefused": "virus",
    "Header": "X-Filtered-By: gateway.example",
    "Clients": "192.0.2.0/24, 2001:db8:1::/64",
    "ClientConnections": "20 shadow",
    "ClientConnectionRate": "60/1m burst 30 shadow",
    "ClientServers": "30/10m shadow",
    "ClientMessages": "200/1h shadow",
    "ClientRecipients": "500/1h shadow",
    "ClientRejects": "20/10m",
    "ClientSpam": "5/10m shadow",
    "ClientExcept": "192.0.2.25",
    "LockOn": "ClientRejects",
    "LockCommand": "/etc/proxsmtp-tp/locked",
    "OutAddress": "198.51.100.25:25",
    "Skip": "authenticated",
    "TimeOut": "300",
    "ConnectFailure": "refuse",
    "XForwardClients": "192.0.2.25",
    "Tls": "terminate",
    "UpstreamTls": "dane",
    "UpstreamCaFile": "/etc/ssl/certs/ca-certificates.crt",
    "TlsCertificate": "/etc/proxsmtp-tp/mx.example.pem /etc/proxsmtp-tp/mx.example.key server=198.51.100.25",
    "TlsCa": "/etc/proxsmtp-tp/ca.pem /etc/proxsmtp-tp/ca.key",
    "TlsUntrustedCa": "/etc/proxsmtp-tp/untrusted-ca.pem /etc/proxsmtp-tp/untrusted-ca.key",
    "TlsWrapped": "465",
    "PidFile": "/run/proxsmtp-tp/gateway.pid",
    "Instance": "gateway",
    "RuleSource": "192.0.2.0/24",
    "RuleExceptSource": "192.0.2.25",
    "RuleExceptDestination": "198.51.100.0/24",
    "RuleListenPort": "10025",
}
"""An example of each directive that has no default. Most limits are in shadow: they refuse nothing."""
_HEAD = """\
# Sample configuration of proxsmtp-tp: proxsmtpd.conf(5) describes every directive.
# Copy it to /etc/proxsmtp-tp/NAME.conf, change it, then type
#     proxsmtp-tp check-config -f /etc/proxsmtp-tp/NAME.conf
#     proxsmtp-tp install-service NAME
# A comment is a line of its own. Without its #, a line that begins with #Name is the default, or an
# example where the text above it shows no value as the default.
"""


def text() -> str:
    """The whole file."""
    return _HEAD + "".join(f"\n{_row(row)}" for row in DIRECTIVES)


def _row(row: Directive) -> str:
    about = textwrap.wrap(f"{row.text} Default: {row.shown_default}.", 98, break_on_hyphens=False)
    lines = "".join(f"# {line}\n" for line in about)
    if row.name in EXAMPLE:
        return f"{lines}{row.name}: {EXAMPLE[row.name]}\n"
    return f"{lines}#{row.name}: {default(row) or WITHOUT_DEFAULT[row.name]}\n"


def default(row: Directive) -> str:
    """The default as it could be written in a file; empty where there is none."""
    if row.default is None or row.default == () or row.field == "instance":
        return ""
    return row.kind.show(row.default)


if __name__ == "__main__":
    sys.stdout.write(text())
