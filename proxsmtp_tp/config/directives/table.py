"""The table of all directives, in the order in which documentation shows them and `Settings` has their fields."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxsmtp_tp.config.directives.clients import CLIENTS
from proxsmtp_tp.config.directives.daemon import DAEMON
from proxsmtp_tp.config.directives.filters import FILTERS
from proxsmtp_tp.config.directives.rules import RULES
from proxsmtp_tp.config.directives.sessions import SESSIONS
from proxsmtp_tp.config.directives.tls import TLS

if TYPE_CHECKING:
    from proxsmtp_tp.config.directives.directive import Directive

DIRECTIVES: tuple[Directive, ...] = (*FILTERS, *CLIENTS, *SESSIONS, *TLS, *DAEMON, *RULES)

BY_NAME: dict[str, Directive] = {row.name.lower(): row for row in DIRECTIVES}
"""The rows by lower-case name: the case of a name does not matter."""
