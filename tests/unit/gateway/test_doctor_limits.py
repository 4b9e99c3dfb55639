"""doctor: no step waits longer than 10 seconds, and all of them together no longer than one."""

from __future__ import annotations

import ast
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from proxsmtp_tp.config.settings import Settings, TransparentProxy
from proxsmtp_tp.gateway import doctor
from proxsmtp_tp.gateway.doctor import examination, listeners, probe, probe_tls, servers
from proxsmtp_tp.gateway.doctor.findings import Setup, State
from proxsmtp_tp.gateway.plan import Options, make_plan
from proxsmtp_tp.service import unix_listener

if TYPE_CHECKING:
    import pytest

    from proxsmtp_tp.gateway.doctor.findings import Finding

LIMIT = 10.0
LONGER = {
    "examination.PROBE_SECONDS": "all mails of a probe, each step of which has STEP_SECONDS",
    "probe._SPARE_SECONDS": "the same",
    "mail_peers._SESSION_SECONDS": "the server of the probe, which ends with it",
    "replica._TOOL_SECONDS": "the step that starts the replica ends it",
}


def setup(step_seconds: float | None = None) -> Setup:
    given = {} if step_seconds is None else {"step_seconds": step_seconds}
    return Setup(Settings(transparent_proxy=TransparentProxy.CLIENT), "/c", make_plan(Options("x")), None, **given)  # type: ignore[arg-type]


def test_no_wait_is_longer_than_a_step_may_take() -> None:
    """Every constant of seconds, so that a new one is looked at, too."""
    assert setup().step_seconds == LIMIT
    found = {}
    for source in sorted(Path(doctor.__file__).parent.glob("*.py")):
        for node in ast.parse(source.read_text()).body:
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
                name = ast.unparse(node.targets[0])
                if name.endswith("SECONDS"):
                    found[f"{source.stem}.{name}"] = float(node.value.value)  # type: ignore[arg-type]
    assert len(found) > 10
    assert {name for name, seconds in found.items() if seconds >= LIMIT} == set(LONGER)


def test_waits_of_one_step_add_up_to_less() -> None:
    assert servers.DNS_SECONDS + servers.DIAL_SECONDS < LIMIT
    assert servers.RELAY_SECONDS < LIMIT
    assert listeners.ANSWER_SECONDS + unix_listener.SECONDS < LIMIT
    assert probe.STEP_SECONDS < probe_tls.TLS_SECONDS < LIMIT


def test_all_steps_together_wait_no_longer_than_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """They wait at the same time: twenty that hang are given up together."""
    end = threading.Event()

    def look_at_nothing(_: Setup) -> list[Finding]:
        end.wait()
        return []

    monkeypatch.setattr(examination, "STEPS", [examination._StepRow(look_at_nothing)] * 20)
    began = time.monotonic()
    found = list(examination.examine(setup(1.0)))
    took = time.monotonic() - began
    end.set()
    assert len(found) == 20
    assert all(item.state is State.UNSEEN and "not ended within 1 s" in item.text for item in found)
    assert took < 10, "they were waited for one after the other"
