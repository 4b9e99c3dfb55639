"""doctor: the daemon's unit, and why a daemon does not run; the test plays systemctl(1) and journalctl(1)."""

from __future__ import annotations

import os
import socket
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.config.addresses import InetAddress
from proxsmtp_tp.config.settings import Settings
from proxsmtp_tp.gateway.doctor import listeners, unit
from proxsmtp_tp.gateway.doctor.findings import Setup
from proxsmtp_tp.gateway.plan import Options, make_plan

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxsmtp_tp.gateway.doctor.findings import Finding

CONFIG = "/etc/proxsmtp-tp/gateway.conf"
RUNNING = {"LoadState": "loaded", "ActiveState": "active", "SubState": "running", "Result": "success", "MainPID": "7"}
STOPPED = RUNNING | {"ActiveState": "inactive", "SubState": "dead", "MainPID": "0"}
FAILING = RUNNING | {"ActiveState": "activating", "SubState": "auto-restart", "Result": "exit-code", "MainPID": "0"}
LOG = ["starting up (2.1.0)...", "CAP_NET_RAW is missing: start it as root"]


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Setup]:
    """A host where systemd runs; the function says what its unit and log are."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "log").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.setattr(listeners, "listening", lambda _: [])
    monkeypatch.setattr(unit, "_LOG_FILES", [str(tmp_path / "log" / "mail.log")])

    def make(
        properties: dict[str, str],
        log: list[str] = LOG,
        needs: tuple[str, ...] = (),
        listen: str = "",
        config: str = CONFIG,
    ) -> Setup:
        monkeypatch.setattr(unit, "SYSTEMD", tmp_path)
        answers = {"systemctl": [f"{name}={value}" for name, value in properties.items()], "journalctl": log}
        for name, lines in answers.items():
            program = tmp_path / "bin" / name
            program.write_text("#!/bin/sh\ncat <<'END'\n" + "".join(f"{line}\n" for line in lines) + "END\n")
            program.chmod(0o755)
        settings = Settings(listen=(InetAddress(*listen.rsplit(":", 1)),) if listen else (), filter_command="cat")  # type: ignore[arg-type]
        return Setup(settings, config, make_plan(Options("gateway")), None, needs=needs)  # type: ignore[arg-type]

    return make


def only(found: list[Finding]) -> Finding:
    assert len(found) == 1, found
    return found[0]


@pytest.mark.parametrize(
    ("properties", "needs", "ok", "text", "fix"),
    [
        (RUNNING, (), True, "proxsmtp-tp@gateway.service is active (running)", ""),
        (RUNNING | {"AmbientCapabilities": "cap_net_raw"}, ("CAP_NET_RAW",), True, "is active", ""),
        (RUNNING | {"User": "root"}, ("CAP_NET_RAW",), True, "is active", ""),
        (
            RUNNING | {"User": "proxsmtp-tp"}, ("CAP_NET_RAW",), False, "does not give CAP_NET_RAW",
            "proxsmtp-tp install-service gateway",
        ),
        (
            FAILING | {"User": "proxsmtp-tp", "AmbientCapabilities": "cap_net_raw"},
            ("CAP_NET_RAW", "CAP_NET_BIND_SERVICE"), False, "does not give CAP_NET_BIND_SERVICE",
            "proxsmtp-tp install-service gateway",
        ),
        ({"LoadState": "not-found"}, (), False, "there is no", "proxsmtp-tp install-service gateway"),
        (
            RUNNING | {"NeedDaemonReload": "yes"}, (), False, "has changed on disk",
            "systemctl daemon-reload && systemctl restart proxsmtp-tp@gateway",
        ),
    ],
)  # fmt: skip
def test_the_unit(
    host: Callable[..., Setup], properties: dict[str, str], needs: tuple[str, ...], ok: bool, text: str, fix: str
) -> None:
    finding = only(list(listeners.look_at_unit(host(properties, needs=needs))))
    assert (finding.ok, finding.fix) == (ok, fix)
    assert text in finding.text


def test_a_daemon_that_was_stopped_is_started(host: Callable[..., Setup]) -> None:
    finding = only(list(listeners.look_at_listeners(host(STOPPED))))
    assert finding.fix == "systemctl start proxsmtp-tp@gateway"
    assert "proxsmtp-tp@gateway.service is inactive" in finding.text


@pytest.mark.parametrize("properties", [FAILING, FAILING | {"ActiveState": "failed", "SubState": "failed"}])
def test_a_daemon_that_cannot_start_says_why(host: Callable[..., Setup], properties: dict[str, str]) -> None:
    """Another start would end as the last one did."""
    finding = only(list(listeners.look_at_listeners(host(properties))))
    assert finding.wrong
    assert finding.fix == ""
    assert f"its log ends: {' | '.join(LOG)}" in finding.text


def test_a_port_that_another_program_has(host: Callable[..., Setup]) -> None:
    """Found without any log."""
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        port = other.getsockname()[1]
        finding = only(list(listeners.look_at_listeners(host(FAILING, listen=f"127.0.0.1:{port}"))))
    assert f"Listen: 127.0.0.1:{port}: Address already in use" in finding.text
    finding = only(list(listeners.look_at_listeners(host(FAILING, listen=f"192.0.2.77:{port}"))))
    assert f"Listen: 192.0.2.77:{port}: Cannot assign requested address" in finding.text


def test_without_systemd_the_log_of_the_log_daemon(
    host: Callable[..., Setup], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    setup = host(STOPPED, log=[])
    monkeypatch.setattr(unit, "SYSTEMD", tmp_path / "none")
    lines = [f"Nov 28 03:00:0{n} gw proxsmtpd[12{n}]: line {n}" for n in range(9)]
    other = "Nov 28 03:01:00 gw postfix/smtpd[9]: proxsmtpd[1]: said somebody"
    Path(unit._LOG_FILES[0]).write_text("\n".join([*lines, other.replace("proxsmtpd[1]: ", "")]) + "\n")
    finding = only(list(listeners.look_at_listeners(setup)))
    assert finding.text.endswith(f"its log ends: {' | '.join(lines[-unit.LINES :])}")
    assert finding.fix == f"proxsmtp-tp serve -f {CONFIG}"


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (CONFIG, "proxsmtp-tp@gateway"),
        ("/etc/proxsmtp-tp/other.conf", "proxsmtp-tp@other"),
        ("/root/gateway.conf", None),
    ],
)
def test_a_unit_belongs_to_a_file(host: Callable[..., Setup], config: str, name: str | None) -> None:
    assert host(RUNNING, config=config).unit == name
