"""The workers in docs/filters.md, run as they stand there."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

import pytest

from proxsmtp_tp.filters.verdict import Action
from proxsmtp_tp.smtp.envelope import Envelope
from tests.unit.filters.worker_harness import pool

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/filters.md").read_text("utf-8")
WORKERS = dict(re.findall(r"^```(?:sh|python) worker (\S+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
GOOD = b"Subject: x\r\n\r\nhello\r\n"


@pytest.mark.parametrize("name", ["worker.py", "worker.sh"])
def test_worker(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text(WORKERS[name])
    program = f"PYTHONPATH={ROOT} exec {sys.executable}" if name.endswith(".py") else "exec sh"

    async def case() -> None:
        async with pool(tmp_path, f"{program} {path}") as workers:
            for _ in range(2):
                judgement, text = await workers.judge(GOOD)
                assert text == GOOD.replace(b"x\r\n", b"x\r\nX-Checked: yes\r\n")
                judgement, _ = await workers.judge(GOOD + b"lottery\r\n")
                assert judgement.action is Action.REJECT
                assert judgement.reply is not None
                assert judgement.reply.wire == b"550 5.7.1 No lotteries\r\n"

    asyncio.run(case())


def test_all_are_run() -> None:
    assert sorted(WORKERS) == ["discard-worker.py", "worker.py", "worker.sh"]


def test_a_pipe_script_as_a_worker(tmp_path: Path) -> None:
    """It judges as discard.py does, which test_filters runs."""
    path = tmp_path / "worker.py"
    path.write_text(WORKERS["discard-worker.py"])
    reply = b"Auto-Submitted: auto-replied\r\n" + GOOD
    nobody = Envelope(b"", b"", [b"b@example.org"], [b""])

    async def case() -> None:
        async with pool(tmp_path, f"PYTHONPATH={ROOT} exec {sys.executable} {path}") as workers:
            judgement, text = await workers.judge(reply)
            assert (judgement.action, text) == (Action.PASS, reply)
            judgement, _ = await workers.judge(GOOD, envelope=nobody)
            assert judgement.action is Action.PASS
            judgement, _ = await workers.judge(reply, envelope=nobody)
            assert judgement.action is Action.DISCARD
            assert judgement.reply is not None
            assert judgement.reply.wire == b"250 2.0.0 Thank you\r\n"

    asyncio.run(case())


def test_a_copy_of_the_module_needs_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "proxsmtp_worker.py").write_text((ROOT / "proxsmtp_tp/worker.py").read_text())
    path = tmp_path / "w.py"
    path.write_text(WORKERS["worker.py"].replace("from proxsmtp_tp.worker", "from proxsmtp_worker"))

    async def case() -> None:
        async with pool(
            tmp_path, f"exec /usr/bin/python3 -I -c 'import sys; sys.path.insert(0, \"{tmp_path}\"); import w'"
        ) as w:
            assert (await w.judge(GOOD))[0].action is Action.PASS

    asyncio.run(case())
