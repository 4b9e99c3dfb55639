"""What Exim and OpenSMTPD, with Debian's defaults, make of each action. Writes their table into docs/tls.md.

As root: `.ci/mta-root && .venv/bin/python -m proxsmtp_tp.lab.isolate .venv/bin/python -m tests.mta.tls_senders`
"""

from __future__ import annotations

import re
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from proxsmtp_tp.lab.network import gateway_network
from tests.mta import senders
from tests.mta.senders import FROM, MESSAGE, OPENSMTPQ
from tests.tls import table
from tests.tls.capture import Capture, check_legs
from tests.tls.levels import ACTIONS, SMTP, Action, Level, Outcome, open_lab, outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from proxsmtp_tp.lab.network import GatewayNetwork
    from tests.mta.senders import Exim, OpenSmtpd
    from tests.tls.levels import Lab

BEGIN = "<!-- made by tests/mta/tls_senders.py -->\n"
SECONDS = 60.0
TRIED = tuple(action for action in ACTIONS if not action.trusted)
EXIM = (
    Level("exim", "Exim, server with TLSA records", {}),
    Level("exim-plain", "Exim, server without TLSA records", {}, records=False),
)
OPENSMTPD = (
    Level("opensmtpd", "OpenSMTPD, server with TLSA records", {}),
    Level("opensmtpd-plain", "OpenSMTPD, server without TLSA records", {}, records=False),
)
_EXIM_WORDS = {"=>": "sent", "==": "deferred", "**": "bounced"}
_EXIM = re.compile(r" (=>|==|\*\*) (\S+@\S+) (.*)$", re.MULTILINE)
_OPENSMTPD_WORDS = {"Ok": "sent", "TempFail": "deferred", "PermFail": "bounced"}
_OPENSMTPD = re.compile(r" to=<([^>]+)> .*result=\"?(\w+)\"? stat=(.*)$", re.MULTILINE)
Statuses = dict[str, tuple[str, str, str]]


def by_exim(sender: Exim, recipients: Sequence[str]) -> Statuses:
    """It tries each once, and a deferred one again only with the next; the first status counts."""
    for to in recipients:
        sender.run("/usr/sbin/exim4", "-odq", "-f", FROM, to, text=MESSAGE)
    sender.run("/usr/sbin/exim4", "-q")
    log = (sender.root / "var/log/exim4/mainlog").read_text(errors="backslashreplace")
    return {to: ("", _EXIM_WORDS[word], said) for word, to, said in reversed(_EXIM.findall(log))}


def by_opensmtpd(sender: OpenSmtpd, recipients: Sequence[str]) -> Statuses:
    """It tries at once."""
    for to in recipients:
        sender.run("/usr/sbin/sendmail", "-f", FROM, to, group=OPENSMTPQ, text=MESSAGE)
    end = time.monotonic() + SECONDS
    while missing := set(recipients) - (found := _opensmtpd_statuses(sender.log)).keys():
        assert time.monotonic() < end, f"{sorted(missing)}\n{sender.log}"
        time.sleep(0.2)
    return found


def _opensmtpd_statuses(log: str) -> Statuses:
    found = reversed(_OPENSMTPD.findall(log))
    return {to: ("", _OPENSMTPD_WORDS[word], said) for to, word, said in found}


def find_all(network: GatewayNetwork, directory: Path) -> dict[tuple[str, str], Outcome]:
    """Of both senders and each action. Nothing that they encrypt is in clear to the server (promise 11)."""
    with (
        open_lab(network, directory) as lab,
        Capture("lan", network.gateway) as clients,
        Capture("wan", network.gateway) as servers,
    ):
        network.sender.run("postfix", "-c", directory / "sender/conf", "stop")  # its port is OpenSMTPD's
        resolv = directory / "resolv.conf"
        with (
            senders.exim(network.sender, directory / "exim", resolv, SECONDS) as exim,
            senders.opensmtpd(network.sender, directory / "opensmtpd", resolv, SECONDS) as opensmtpd,
        ):
            statuses = _try(exim, opensmtpd, TRIED[:1])
            with lab.instance("pass").running():
                statuses |= _try(exim, opensmtpd, TRIED[1:])
        outcomes = _outcomes(lab, statuses)
    check_legs(*([each for each in leg.streams if each.port == SMTP] for leg in (clients, servers)))
    return outcomes


def _try(exim: Exim, opensmtpd: OpenSmtpd, actions: Sequence[Action]) -> Statuses:
    by_sender = [[level.recipient(action) for level in levels for action in actions] for levels in (EXIM, OPENSMTPD)]
    return by_exim(exim, by_sender[0]) | by_opensmtpd(opensmtpd, by_sender[1])


def _outcomes(lab: Lab, statuses: Statuses) -> dict[tuple[str, str], Outcome]:
    lab.server.wait_mailbox(sum(status == "sent" for _, status, _ in statuses.values()), SECONDS)
    arrived = lab.arrived()
    return {
        (level.name, action.name): outcome(statuses[to], arrived.get(to))
        for level in (*EXIM, *OPENSMTPD)
        for action in TRIED
        for to in [level.recipient(action)]
    }


def in_markdown(outcomes: dict[tuple[str, str], Outcome]) -> str:
    """The table."""
    return table.table(outcomes, (*EXIM, *OPENSMTPD), TRIED)


def main() -> None:
    """Try all, write the table."""
    with tempfile.TemporaryDirectory(prefix="proxsmtp-tls.") as name, gateway_network() as network:
        directory = Path(name)
        directory.chmod(0o755)
        table.write(in_markdown(find_all(network, directory)), BEGIN)


if __name__ == "__main__":
    main()
