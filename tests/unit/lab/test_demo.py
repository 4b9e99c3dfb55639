"""What the demo says where it does not come to its end. tests/real/test_demo.py runs the whole of it."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import pytest

from proxsmtp_tp.lab import demo

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No network, and this process's own signal handler and hook afterwards."""
    monkeypatch.setattr(demo, "gateway_network", nullcontext)
    monkeypatch.setattr(demo, "PRIVATE", None)
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    handler = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, handler)


def run(monkeypatch: pytest.MonkeyPatch, what: Any) -> int:
    monkeypatch.setattr(demo.Demo, "__init__", lambda *_: None)
    monkeypatch.setattr(demo.Demo, "run", what)
    return demo.main()


def test_a_failure_is_reported(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(_: demo.Demo) -> None:
        raise OSError("no such luck")

    assert run(monkeypatch, fail) == 1
    assert "The demo failed: no such luck" in capsys.readouterr().err


def test_what_an_interrupt_breaks_is_no_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As smtplib does at the end of a `with`: QUIT is answered by the reply that was on its way."""

    def interrupted(_: demo.Demo) -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
        finally:
            raise OSError("550 refused by the filter")

    assert run(monkeypatch, interrupted) == 130
    assert "The demo was interrupted." in capsys.readouterr().err


def test_an_interrupt_in_a_finaliser_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Finalised:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGINT)

    def interrupted(self: demo.Demo) -> None:
        Finalised()
        raise OSError("what came of it")

    assert run(monkeypatch, interrupted) == 130
    assert "Traceback" not in capsys.readouterr().err
