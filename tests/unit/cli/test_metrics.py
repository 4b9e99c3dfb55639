"""proxsmtp-tp metrics: what is printed, and what is said where it cannot be."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.cli import main as cli
from proxsmtp_tp.cli import metrics
from proxsmtp_tp.service import metrics_socket

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def socket_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One instance runs."""
    monkeypatch.setattr(metrics, "status_socket", lambda _args: tmp_path / "north.sock")


def test_the_numbers_are_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(metrics_socket, "read_metrics", lambda path: f"{path.name} 1\n")
    assert cli.main(["metrics"]) == 0
    assert capsys.readouterr().out == "north.metrics 1\n"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError(13, "denied"), "only root and the daemon's group may ask"),
        (ConnectionRefusedError(111, "Connection refused"), "the daemon does not answer at"),
    ],
)
def test_no_answer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: OSError, said: str
) -> None:
    def read(_path: Path) -> str:
        raise error

    monkeypatch.setattr(metrics_socket, "read_metrics", read)
    assert cli.main(["metrics"]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert said in told.err


@pytest.mark.parametrize("address", ["/run/x", "127.0.0.1:0x", "a:b:c"])
def test_an_address_that_is_none(capsys: pytest.CaptureFixture[str], address: str) -> None:
    assert cli.main(["metrics", "--listen", address]) == 2
    assert capsys.readouterr().err.startswith("--listen: ")


def test_an_address_that_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert cli.main(["metrics", "--listen", f"127.0.0.1:{port}"]) == 1
    assert capsys.readouterr().err == f"cannot listen on 127.0.0.1:{port}: Address already in use\n"


@pytest.mark.parametrize("host", ["", "127.0.0.2"])
def test_without_a_host_only_this_one_may_ask(host: str) -> None:
    with metrics.serve(host, 0, str) as server:
        assert server.server_address[0] == (host or "127.0.0.1")
