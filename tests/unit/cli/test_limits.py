"""proxsmtp-tp limits, locks and explain: what they ask, what they show, and their exit status."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from proxsmtp_tp.cli import daemon as asking
from proxsmtp_tp.cli import main as cli
from proxsmtp_tp.service import control

if TYPE_CHECKING:
    from pathlib import Path

LOCK = {
    "client": "192.0.2.7",
    "since": 1,
    "until": 2,
    "until_utc": "2026-11-28T05:00:00Z",
    "reason": "ClientSpam",
    "text": "",
    "repeated": 2,
}
USED = {"limit": "ClientSpam", "value": "5/10m", "used": 5, "burst": 5, "seconds": 125, "shadow": False}
KNOWN = {"client": "192.0.2.7", "known": True, "connections": 3, "limits": [USED], "lock": LOCK}
FILTER = {"type": "pipe", "command": "cat", "mode": "enforce"}
PASSED = {"connection": "", "MAIL": "", "RCPT": "", "DATA": ""}
COUNTED = {"client": "192.0.2.7", "limits": [USED], "lock": {"until": "2026-11-28T05:00:00Z", "reason": "ClientSpam"}}


class Daemon:
    """What is asked, and what it answers."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.answer: dict[str, Any] = {}
        self.error: Exception | None = None

    def ask(self, _path: Path, command: str, **fields: Any) -> dict[str, Any]:
        self.asked.append({"command": command, **fields})
        if self.error is not None:
            raise self.error
        return self.answer


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Daemon:
    made = Daemon()
    monkeypatch.setattr(asking, "status_socket", lambda _args: tmp_path / "a.sock")
    monkeypatch.setattr(control, "ask", made.ask)
    return made


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "a.conf"
    path.write_text("TransparentProxy: client\nRuleInterface: lan0\nClientMessages: 5/1h\n", "utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("arguments", "asked", "answer"),
    [
        (["limits", "show", "192.0.2.7"], {"command": "limits", "client": "192.0.2.7"}, KNOWN),
        (["limits", "reset", "192.0.2.7"], {"command": "limits", "client": "192.0.2.7", "reset": True}, KNOWN),
        (["locks"], {"command": "locks"}, {"locks": [LOCK], "number": 1}),
        (["locks", "list"], {"command": "locks"}, {"locks": [], "number": 0}),
        (
            ["locks", "add", "192.0.2.7", "--for", "1h", "--reason", "why"],
            {"command": "locks", "add": "192.0.2.7", "seconds": 3600, "text": "why"},
            {"locked": LOCK, "warning": ""},
        ),
        (
            ["locks", "remove", "192.0.2.7"],
            {"command": "locks", "remove": "192.0.2.7"},
            {"removed": LOCK, "warning": ""},
        ),
    ],
)
@pytest.mark.parametrize("machine", [False, True], ids=["people", "programs"])
def test_what_is_asked(
    arguments: list[str], asked: dict[str, Any], answer: dict[str, Any], machine: bool, daemon: Daemon,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    daemon.answer = answer
    assert cli.main([*arguments, *(["--json"] if machine else [])]) == 0
    assert daemon.asked == [asked]
    out = capsys.readouterr().out
    assert not machine or json.loads(out) == answer


def test_limits_for_people(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.answer = KNOWN
    cli.main(["limits", "show", "192.0.2.7"])
    assert capsys.readouterr().out == (
        "192.0.2.7: connections 3\n"
        "  ClientSpam 5/10m: 5 of 5 used, reached for 2 min 5 s\n"
        "  locked until 2026-11-28T05:00:00Z: ClientSpam\n"
    )
    daemon.answer = KNOWN | {"known": False, "limits": [], "lock": None}
    cli.main(["limits", "show", "192.0.2.7"])
    assert capsys.readouterr().out == "192.0.2.7: nothing is known of it\n  no limit is configured\n"


def test_locks_for_people(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    shown = "192.0.2.7 until 2026-11-28T05:00:00Z (ClientSpam), 2 times before"
    daemon.answer = {"locks": [LOCK], "number": 3}
    cli.main(["locks"])
    assert capsys.readouterr().out == f"{shown}\nand 2 more\n"
    daemon.answer = {"locks": [], "number": 0}
    cli.main(["locks"])
    assert capsys.readouterr().out == "no client is locked\n"
    daemon.answer = {"locked": LOCK | {"text": "\x1b[31m"}, "warning": "not kept"}
    assert cli.main(["locks", "add", "192.0.2.7"]) == 0
    told = capsys.readouterr()
    told_text = shown.replace("ClientSpam", "ClientSpam: \\x1b[31m")
    assert told.out == f"locked {told_text}\n"
    assert told.err == "warning: not kept\n"


def test_to_remove_a_lock_that_is_not_there_fails(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.answer = {"removed": None, "warning": ""}
    assert cli.main(["locks", "remove", "192.0.2.7"]) == 1
    assert capsys.readouterr().out == "it was not locked\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["locks", "add"],
        ["locks", "list", "192.0.2.7"],
        ["locks", "remove", "192.0.2.7", "--for", "1h"],
        ["locks", "--reason", "x"],
        ["locks", "add", "192.0.2.7", "--for", "soon"],
        ["locks", "forget", "192.0.2.7"],
        ["limits", "show"],
        ["limits", "192.0.2.7"],
        ["explain", "192.0.2.7"],
        ["explain", "mx.example", "198.51.100.25"],
        ["explain", "192.0.2.7", "mx.example"],
        ["explain", "192.0.2.7", "198.51.100.25:0"],
        ["explain", "192.0.2.7", "/run/x"],
    ],
)
def test_usage(arguments: list[str], daemon: Daemon) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    assert daemon.asked == []


@pytest.mark.parametrize("arguments", [["limits", "show", "192.0.2.7"], ["locks"], ["locks", "add", "192.0.2.7"]])
@pytest.mark.parametrize(
    ("error", "words"),
    [
        (control.ControlError("no space"), "no space"),
        (ConnectionRefusedError(), "no daemon listens at"),
        (PermissionError(), "only root and the daemon's user may ask"),
    ],
)
def test_no_answer(
    arguments: list[str], error: Exception, words: str, daemon: Daemon, capsys: pytest.CaptureFixture[str]
) -> None:
    daemon.error = error
    assert cli.main(arguments) == 1
    assert words in capsys.readouterr().err


def test_explain_for_people(daemon: Daemon, config: str, capsys: pytest.CaptureFixture[str]) -> None:
    answers = {"connection": "", "MAIL": "450 4.7.1 Too many"}
    daemon.answer = {
        "counted": COUNTED,
        "tls": [{"action": "terminate", "rule": "terminate"}],
        "tls_rejected": [{"name": "mx.example", "seconds": 7200}, {"name": "", "seconds": 60}],
        "answers": answers,
        "reasons": ["client=192.0.2.7: refused"],
        "filter": None,
        "bypassed": False,
    }
    assert cli.main(["explain", "-f", config, "192.0.2.7", "198.51.100.25", "--from", "a@b"]) == 0
    assert daemon.asked == [
        {"command": "explain", "client": "192.0.2.7", "server": "198.51.100.25", "port": 25, "from": "a@b"}
    ]
    assert capsys.readouterr().out == (
        "rules       intercepted: if it comes in by lan0 (RuleInterface)\n"
        "limits      192.0.2.7\n"
        "            ClientSpam 5/10m: 5 of 5 used, reached for 2 min 5 s\n"
        "lock        2026-11-28T05:00:00Z (ClientSpam)\n"
        "TLS         terminate (Tls: terminate): TLS on both legs, messages are judged\n"
        "            pass (TlsRejected) with mx.example for another 2 h: the client rejected our certificate\n"
        "            pass (TlsRejected) with no server name for another 1 min: the client rejected our certificate\n"
        "connection  the greeting of the server\n"
        "MAIL        450 4.7.1 Too many\n"
        "log         client=192.0.2.7: refused\n"
    )


@pytest.mark.parametrize(
    ("server", "address", "port"),
    [
        ("198.51.100.25", "198.51.100.25", 25),
        ("198.51.100.25:587", "198.51.100.25", 587),
        ("2001:db8::25", "2001:db8::25", 25),
        ("[2001:db8::25]:587", "2001:db8::25", 587),
    ],
)
def test_explain_with_a_port(
    server: str, address: str, port: int, daemon: Daemon, config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    daemon.answer = {"counted": None, "answers": PASSED, "reasons": [], "filter": FILTER, "bypassed": False}
    client = "2001:db8:1::7" if ":" in address else "192.0.2.7"
    assert cli.main(["explain", "--json", "-f", config, client, server]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["server"], told["port"], told["running"]) == (address, port, True)
    assert told["rules"]["intercepted"] is (port == 25)
    cli.main(["explain", "-f", config, client, server])
    shown = capsys.readouterr().out
    assert "DATA        the message goes to the filter: FilterType pipe, cat\n" in shown
    assert "limits      none: ClientExcept, this host, or no space in the table of clients\n" in shown
    assert ("what follows is for a connection that reaches the daemon nevertheless" in shown) is (port != 25)


def test_explain_without_a_daemon(daemon: Daemon, config: str, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.error = ConnectionRefusedError()
    assert cli.main(["explain", "-f", config, "192.0.2.7", "198.51.100.25"]) == 0
    shown = capsys.readouterr().out
    assert "daemon      it does not run: what follows is as after its start\n" in shown
    assert "ClientMessages 5/1h: 0 of 5 used\n" in shown
    assert "DATA        passed to the server; no filter\n" in shown


def test_explain_with_a_wrong_configuration(tmp_path: Path, daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "b.conf"
    path.write_text("Nonsense: 1\n", "utf-8")
    assert cli.main(["explain", "-f", str(path), "192.0.2.7", "198.51.100.25"]) == 2
    assert "no such directive" in capsys.readouterr().err
    path.write_text("Listen: /run/x\nOutAddress: 25\n", "utf-8")
    daemon.answer = {"counted": None, "answers": PASSED, "reasons": [], "filter": None, "bypassed": False}
    assert cli.main(["explain", "-f", str(path), "192.0.2.7", "198.51.100.25"]) == 0
    assert "not intercepted: no rules can be made: the daemon listens on no TCP port" in capsys.readouterr().out
    daemon.error = control.ControlError("no")
    assert cli.main(["explain", "-f", str(path), "192.0.2.7", "198.51.100.25"]) == 1


def of(name: str, **more: object) -> dict[str, object]:
    """What the daemon says of a filter of the chain."""
    usual = {"type": "pipe", "mode": "enforce", "failure": "tempfail", "skipped": False, "skipped_authenticated": False}
    return {"name": name} | usual | more


@pytest.mark.parametrize(
    ("filtering", "bypassed", "shown"),
    [
        (None, True, "passed to the server; the filter is bypassed"),
        (FILTER | {"chain": ["a", "b"], "filters": [of("a", skipped=True), of("b")]}, False, "to the filters b\n"),
        (FILTER | {"chain": ["a"], "filters": [of("a", skipped=True)]}, False, "no filter gets it: all skip it"),
        (FILTER | {"chain": ["a"], "filters": [of("a", skipped=True)]}, False, "a: skipped: the client is in skip="),
        (
            FILTER | {"chain": ["a"], "filters": [of("a", skipped_authenticated=True)]},
            False,
            "message is deferred (failure=tempfail); skipped after a login (skip=authenticated)\n",
        ),
        (
            FILTER | {"chain": ["a"], "filters": [of("a", mode="tag", failure="pass")]},
            False,
            "a: its refusal becomes a header (mode=tag); if it fails, the message goes on (failure=pass)\n",
        ),
        (
            FILTER | {"chain": ["a"], "filters": [of("a", mode="shadow")]},
            False,
            "filter      a: its refusal is only logged (mode=shadow)\n",
        ),
        (FILTER | {"mode": "monitor"}, False, "FilterType pipe, cat, which only monitors (FilterMode)"),
    ],
)
def test_explain_a_filter_that_does_not_decide(
    filtering: dict[str, object] | None, bypassed: bool, shown: str, daemon: Daemon, config: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    daemon.answer = {"counted": None, "answers": PASSED, "reasons": [], "filter": filtering, "bypassed": bypassed}
    assert cli.main(["explain", "-f", config, "192.0.2.7", "198.51.100.25"]) == 0
    assert shown in capsys.readouterr().out
