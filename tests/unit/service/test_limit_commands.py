"""Commands about limits and locks: what they answer, and what they refuse."""

from __future__ import annotations

import json
from ipaddress import ip_network
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from proxsmtp_tp.config.rates import AtOnce, ClientLimit, RateLimit
from proxsmtp_tp.config.settings import FilterType, Settings
from proxsmtp_tp.config.tls_lines import TlsRule, parse_tls, parse_upstream
from proxsmtp_tp.net.admission import Admission
from proxsmtp_tp.net.client_limits import WorkerLimits
from proxsmtp_tp.net.tls_rejections import Rejection
from proxsmtp_tp.service import limit_commands
from proxsmtp_tp.service.control import ControlError
from proxsmtp_tp.service.locks import FILE, Locks

if TYPE_CHECKING:
    from pathlib import Path

    from proxsmtp_tp.net.client_limits import ConnectionLimits

DAY = 86400
CLIENT, SERVER = "192.0.2.7", "198.51.100.25"


class Daemon:
    """What the commands see of the master, and a worker."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        given = {"client_except": (ip_network("203.0.113.0/24"),), **settings}
        self.admission = Admission(3, 1, 64)
        self.table = self.admission.clients
        self.bypass: Any = SimpleNamespace(active=False)
        self.locks = Locks(Settings(**given), self.table, folder / FILE)
        self._worker = WorkerLimits(Settings(**given), self.table, 0, lambda _: None)

    def enter(self) -> ConnectionLimits:
        return self._worker.enter(CLIENT)


def test_limits_of_a_client(tmp_path: Path) -> None:
    rate = RateLimit(3, DAY, 3)
    spam_rate = RateLimit(1, DAY, 1, shadow=True)
    daemon = Daemon(tmp_path, client_messages=rate, client_spam=spam_rate, client_connections=AtOnce(5))
    unknown = limit_commands.limits(daemon, {"client": CLIENT})
    assert (unknown["client"], unknown["known"], unknown["connections"], unknown["lock"]) == (CLIENT, False, 0, None)
    limits = daemon.enter()
    for _ in range(5):
        limits.message()
    answer = limit_commands.limits(daemon, {"client": CLIENT})
    json.dumps(answer)
    assert (answer["known"], answer["connections"]) == (True, 1)
    at_once, messages, spam = answer["limits"]
    name = "ClientConnections"
    assert at_once == {"limit": name, "value": "5", "used": 1, "burst": 5, "seconds": 0, "shadow": False}
    assert (messages["limit"], messages["used"], messages["burst"]) == ("ClientMessages", 3, 3)
    assert 0 < messages["seconds"] <= DAY // 3
    assert (spam["limit"], spam["used"], spam["seconds"], spam["shadow"]) == ("ClientSpam", 0, 0, True)


def test_a_reset_forgets_all_but_the_lock(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path, client_messages=RateLimit(1, DAY, 1))
    limits = daemon.enter()
    limits.message()
    limit_commands.locks(daemon, {"add": CLIENT, "seconds": 60})
    answer = limit_commands.limits(daemon, {"client": CLIENT, "reset": True})
    assert answer["limits"][0]["used"] == 0
    assert answer["lock"]["reason"] == "administrator"
    limit_commands.locks(daemon, {"remove": CLIENT})
    assert limits.message() is None


def test_a_reset_forgets_repetition(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path, client_rejects=RateLimit(1, DAY, 1), lock_on=(ClientLimit.REJECTS,))
    daemon.enter().happened(ClientLimit.REJECTS)
    daemon.locks.step()
    limit_commands.limits(daemon, {"client": CLIENT, "reset": True})
    again = limit_commands.locks(daemon, {"add": CLIENT})["locked"]
    assert again["until"] - again["since"] == 900 * 2  # the lock that runs is the first
    limit_commands.locks(daemon, {"remove": CLIENT})
    assert limit_commands.locks(daemon, {"add": CLIENT})["locked"]["repeated"] == 0


def test_locks(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    assert limit_commands.locks(daemon, {}) == {"locks": [], "number": 0}
    answer = limit_commands.locks(daemon, {"add": "2001:db8::1", "seconds": 60, "text": "spam"})
    json.dumps(answer)
    lock = answer["locked"]
    assert (lock["client"], lock["reason"], lock["text"]) == ("2001:db8::/64", "administrator", "spam")
    assert lock["until"] - lock["since"] == 60
    assert limit_commands.locks(daemon, {}) == {"locks": [lock], "number": 1}
    assert limit_commands.locks(daemon, {"remove": "2001:db8::/64"})["removed"] == lock
    assert limit_commands.locks(daemon, {"remove": "2001:db8::/64"})["removed"] is None


def test_a_long_list_says_how_many_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limit_commands, "_SHOWN_MAX", 2)
    daemon = Daemon(tmp_path)
    for number in range(5):
        limit_commands.locks(daemon, {"add": f"192.0.2.{number}"})
    answer = limit_commands.locks(daemon, {})
    assert (len(answer["locks"]), answer["number"]) == (2, 5)


@pytest.mark.parametrize(
    ("command", "request_", "words"),
    [
        ("limits", {}, "has no limits"),
        ("limits", {"client": "x"}, "'x' is no IP address"),
        ("limits", {"client": "203.0.113.7"}, "ClientExcept"),
        ("limits", {"client": "127.0.0.1"}, "this host itself"),
        ("locks", {"add": "192.0.2.0/24"}, "not one client"),
        ("locks", {"add": ["192.0.2.1"]}, "no IP address"),
        ("locks", {"add": CLIENT, "seconds": 0}, "is no time"),
        ("locks", {"add": CLIENT, "seconds": True}, "is no time"),
        ("locks", {"add": CLIENT, "seconds": 1.5}, "is no time"),
        ("locks", {"add": CLIENT, "seconds": 10**12}, "10 years"),
        ("locks", {"add": CLIENT, "text": "a\nb"}, "one line"),
        ("locks", {"add": CLIENT, "text": "x" * 201}, "200 characters"),
        ("explain", {"client": CLIENT}, "no IP address"),
        ("explain", {"client": "mx.example", "server": SERVER}, "'mx.example' is no IP address"),
        ("explain", {"client": CLIENT, "server": SERVER, "from": "a\r\nRSET"}, "one line"),
        ("explain", {"client": CLIENT, "server": SERVER, "port": 0}, "0 is no port"),
        ("explain", {"client": CLIENT, "server": SERVER, "port": "25"}, "'25' is no port"),
    ],
)
def test_what_is_refused_says_why(command: str, request_: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(ControlError, match=words):
        getattr(limit_commands, command)(Daemon(tmp_path), request_)
    assert not (tmp_path / FILE).exists()


TLS_LINES = (*parse_tls("pass port=2525"), *parse_tls("terminate name=mx.example"), *parse_tls("strip"))


@pytest.mark.parametrize(
    ("lines", "port", "found"),
    [
        ((), 25, [("strip", "")]),
        (TLS_LINES, 25, [("terminate", "terminate name=mx.example"), ("strip", "strip")]),
        (TLS_LINES, 2525, [("pass", "pass port=2525")]),
    ],
)
def test_explain_names_the_tls_lines_of_the_port(
    lines: tuple[TlsRule, ...], port: int, found: list[tuple[str, str]], tmp_path: Path
) -> None:
    answer = limit_commands.explain(Daemon(tmp_path, tls=lines), {"client": CLIENT, "server": SERVER, "port": port})
    assert [(each["action"], each["rule"]) for each in answer["tls"]] == found


def test_explain_names_where_tls_passes_because_the_client_rejected_our_certificate(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path, tls=parse_tls("terminate"))
    asked = {"client": CLIENT, "server": SERVER, "port": 25}
    assert limit_commands.explain(daemon, asked)["tls_rejected"] == []
    one = Rejection(CLIENT, SERVER, 25, "mx.example")
    for each in (one, one._replace(server="198.51.100.26"), one._replace(port=26), one._replace(client="192.0.2.8")):
        daemon.admission.tls_rejections.learn(each, 60)
    assert limit_commands.explain(daemon, asked)["tls_rejected"] == [{"name": "mx.example", "seconds": 60}]


def test_explain_names_the_reply_where_tls_to_the_server_is_demanded(tmp_path: Path) -> None:
    """The server offers STARTTLS; no name is known that its certificate could be verified for."""
    settings = {"tls": parse_tls("terminate"), "upstream_tls": parse_upstream("verify port=2525")}
    asked = {"client": CLIENT, "server": SERVER}
    daemon = Daemon(tmp_path, **settings)
    assert limit_commands.explain(daemon, asked | {"port": 25})["answers"]["MAIL"] == ""
    assert limit_commands.explain(daemon, asked | {"port": 2525})["answers"]["MAIL"][:9] == "421 4.7.5"


def test_explain_answers_with_the_configuration_in_force_and_what_was_counted(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path, client_messages=RateLimit(1, DAY, 1), filter_type=FilterType.FILE, filter_command="judge")
    request = {"client": CLIENT, "server": SERVER}
    answer = limit_commands.explain(daemon, request)
    json.dumps(answer)
    assert answer["answers"] == {"connection": "", "MAIL": "", "RCPT": "", "DATA": ""}
    assert answer["filter"] == {"type": "file", "command": "judge", "mode": "enforce"}
    daemon.enter().message()
    answer = limit_commands.explain(daemon, request)
    assert answer["answers"]["MAIL"].startswith("450 4.7.1 Too many messages")
    assert answer["counted"]["limits"][0]["used"] == 1
    daemon.locks.add(CLIENT, 60, "")
    answer = limit_commands.explain(daemon, request)
    assert answer["answers"]["connection"].startswith(f"421 4.7.1 {CLIENT} is locked until ")
    assert answer["counted"]["lock"]["reason"] == "administrator"
    assert limit_commands.explain(daemon, {"client": "203.0.113.9", "server": SERVER})["counted"] is None


def test_explain_knows_the_bypass_and_maxconnections(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path, filter_command="judge")
    request = {"client": CLIENT, "server": SERVER}
    daemon.bypass.active = True
    answer = limit_commands.explain(daemon, request)
    assert (answer["filter"], answer["bypassed"], answer["answers"]["DATA"]) == (None, True, "")
    for _ in range(2):
        assert daemon.admission.try_enter(0, "192.0.2.8")
    assert limit_commands.explain(daemon, request)["answers"]["connection"] == ""
    assert daemon.admission.try_enter(0)
    daemon.bypass.active = False
    answer = limit_commands.explain(daemon, request)
    assert answer["filter"] is None  # no message comes to it
    assert answer["answers"] == {"connection": "421 4.7.0 Too many connections, try again later"}
    assert not daemon.admission.would_enter(CLIENT)
