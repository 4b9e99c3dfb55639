"""A bug in a callback of a filter costs one connection, at once: 421, and nothing of the filter is left."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

import pytest

from proxsmtp_tp.config.settings import FilterMode, FilterType
from tests.unit.net.dialogue import DOT, MESSAGE_CODES, one_message
from tests.unit.net.proxy_harness import Mx, until
from tests.unit.session.models import ModelServer

if TYPE_CHECKING:
    from tests.unit.net.proxy_harness import Peer, StartProxy

PIPE: dict[str, Any] = {"filter_command": "cat"}
FILE: dict[str, Any] = {"filter_command": "true", "filter_type": FilterType.FILE}
LATE: dict[str, Any] = {"filter_command": "cat >/dev/null; sleep 600", "filter_timeout": 0.2}
SLOW: dict[str, Any] = {"filter_command": "sleep 0.1; cat"}
MONITOR: dict[str, Any] = {"filter_command": "cat", "filter_mode": FilterMode.MONITOR}
SCANNER: dict[str, Any] = {"filter_type": FilterType.SMTP}
NOBODY: dict[str, Any] = {"filter_type": FilterType.SMTP, "filter_command": "127.0.0.1:1"}
LARGE = f"Subject: large\n\n{('x' * 70 + chr(10)) * 20_000}."
"""More than a pipe or a socket holds."""

BUGS: list[tuple[str, dict[str, Any], str]] = [
    ("net.context.WorkerContext.remember", PIPE, DOT),
    ("net.connection.Connection.filter_started", PIPE, DOT),
    ("net.connection.Connection.filter_started", FILE, DOT),
    ("net.judging.Judging.filter_verdict", PIPE, DOT),
    ("filters.judging.Judging._stop", PIPE, DOT),
    ("filters.launcher._variables", PIPE, DOT),
    ("filters.run.CommandRun.child_exited", PIPE, DOT),
    ("filters.run.CommandRun.child_exited", FILE, DOT),
    ("filters.run.CommandRun.child_errors", {"filter_command": "echo no >&2; exit 1"}, DOT),
    ("filters.run.CommandRun._out_of_time", LATE, DOT),
    ("filters.run.passed", PIPE, DOT),
    ("filters.run.refused", {"filter_command": "exit 1"}, DOT),
    ("filters.file.FileRun._consider", FILE, DOT),
    ("filters.pipe.PipeRun.child_output", PIPE, DOT),
    ("filters.pipe.PipeRun.child_output_closed", PIPE, DOT),
    ("filters.pipe.PipeRun.child_input_taken", SLOW, LARGE),
    ("filters.pipe.PipeRun._feed", PIPE, DOT),
    ("filters.pipe.PipeRun.read", PIPE, DOT),
    ("filters.process.Child._take_errors", {"filter_command": "echo no >&2; sleep 600"}, DOT),
    # Another process has standard error open when the command ends.
    ("filters.process.Child._take_last_errors", {"filter_command": "cat; sleep 2 >/dev/null &"}, DOT),
    ("filters.child_input.ChildInput._try_write", SLOW, LARGE),
    ("filters.process.read", PIPE, DOT),
    ("filters.process.os.waitid", PIPE, DOT),
    ("filters.monitor.MonitorRun.filter_verdict", MONITOR, DOT),
    ("filters.monitor.MonitorRun.filter_started", MONITOR, DOT),
    ("filters.monitor._Digest.feed", MONITOR, DOT),
    ("filters.monitor._would", MONITOR, DOT),
    ("filters.smtp.ScanRun._judged", SCANNER, DOT),
    ("filters.smtp.ScanRun._feed", SCANNER, DOT),
    ("filters.smtp.ScanRun.scanner_data", SCANNER, DOT),
    ("filters.smtp.ScanRun.scanner_lost", SCANNER, DOT),
    ("filters.smtp.ScanRun.scanner_unreachable", NOBODY, DOT),
    ("filters.smtp.ScannerConnection", SCANNER, DOT),
    ("filters.scanner_connection._connect", SCANNER, DOT),
    ("filters.scanner_dialogue.ScannerDialogue.feed", SCANNER, DOT),
]


def break_once(monkeypatch: pytest.MonkeyPatch, where: str) -> list[str]:
    """The named function raises at its first call. Grows by one entry then."""
    path, parts = "proxsmtp_tp", where.split(".")
    while importlib.util.find_spec(f"{path}.{parts[0]}"):
        path = f"{path}.{parts.pop(0)}"
        if not hasattr(importlib.import_module(path), "__path__"):
            break
    owner: Any = importlib.import_module(path)
    for name in parts[:-1]:
        owner = getattr(owner, name)
    real = getattr(owner, parts[-1])
    raised: list[str] = []

    def broken(*arguments: Any, **named: Any) -> Any:
        if not raised:
            raised.append(where)
            raise ZeroDivisionError("a bug")
        return real(*arguments, **named)

    monkeypatch.setattr(owner, parts[-1], broken)
    return raised


async def greeted(client: Peer) -> Peer:
    """With the greeting taken."""
    assert (await client.reply()).startswith(b"220")
    return client


async def send_message(client: Peer, text: str = DOT) -> None:
    """Up to its last line, whose reply is not read."""
    await greeted(client)
    for line in ("EHLO c.example", "MAIL FROM:<a@c.example>", "RCPT TO:<b@mx.example>", "DATA"):
        await client.ask(line)
    await client.say(text)


async def gets_421(client: Peer) -> None:
    """And no verdict."""
    assert await client.rest() == b"421 4.3.0 Internal error, try again later\r\n"
    client.close()


@pytest.mark.parametrize(("where", "directives", "text"), BUGS, ids=[f"{row[0]}-{at}" for at, row in enumerate(BUGS)])
async def test_it_costs_one_connection_at_once(
    start_proxy: StartProxy,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    where: str,
    directives: dict[str, Any],
    text: str,
) -> None:
    lost = where.endswith("scanner_lost")
    async with Mx() as judge, Mx() as mx:
        if not lost:
            judge.serve(ModelServer)
        mx.serve(ModelServer)
        settings = {"filter_command": f"127.0.0.1:{judge.port}", "filter_processes": 1, **directives}
        async with start_proxy(mx, **settings) as harness:
            harness.errors_expected = True
            other = await greeted(await harness.client())
            raised = break_once(monkeypatch, where)
            client = await harness.client()
            await send_message(client, text)
            if lost:
                (await judge.accept()).close()
            await gets_421(client)
            await until(lambda: harness.admission.counts() == [1], "the connection ended")
            assert raised
            assert caplog.text.count("internal error: closing") == 1
            assert "ZeroDivisionError: a bug" in caplog.text
            judging: Any = harness.proxy.context.filter
            await until(lambda: not getattr(judging, "running", 0), "the place is free")
            assert (await other.ask("NOOP")).startswith(b"250")


@pytest.mark.parametrize("directives", [PIPE, FILE, SCANNER], ids=["pipe", "file", "smtp"])
async def test_in_the_start_of_a_filter_that_waited(
    start_proxy: StartProxy, monkeypatch: pytest.MonkeyPatch, directives: dict[str, Any]
) -> None:
    """Its place is free for the next message."""
    async with Mx() as judge, Mx() as mx:
        judge.serve(ModelServer)
        mx.serve(ModelServer)
        settings = {"filter_command": f"127.0.0.1:{judge.port}", "filter_processes": 1, **directives}
        async with start_proxy(mx, **settings) as harness:
            harness.errors_expected = True
            filter_: Any = harness.proxy.context.filter
            limit = filter_.limit if directives is SCANNER else filter_._launcher.limit
            assert limit.enter(lambda: None)
            start = "filters.smtp.ScannerConnection" if directives is SCANNER else "filters.launcher._variables"
            break_once(monkeypatch, start)
            client = await harness.client()
            await send_message(client)
            await until(lambda: limit.waiting, "it waits")
            limit.leave()
            await gets_421(client)
            assert not limit.taken
            assert await one_message(await harness.client()) == MESSAGE_CODES


async def test_when_no_place_becomes_free(start_proxy: StartProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Mx() as mx, start_proxy(mx, filter_command="cat", filter_processes=1, filter_timeout=0.1) as harness:
        harness.errors_expected = True
        mx.serve(ModelServer)
        filter_: Any = harness.proxy.context.filter
        limit = filter_._launcher.limit
        assert limit.enter(lambda: None)
        break_once(monkeypatch, "filters.judging.trouble")
        client = await harness.client()
        await send_message(client)
        await gets_421(client)
        assert not limit.waiting
        limit.leave()


async def test_a_bug_in_what_is_done_each_second_costs_one_connection(
    start_proxy: StartProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not the worker. Each second it is asked whether a client that is not read is still there."""
    async with Mx() as mx, start_proxy(mx, filter_command="cat >/dev/null; sleep 600") as harness:
        harness.errors_expected = True
        mx.serve(ModelServer)
        second = await greeted(await harness.client())
        first = await harness.client()
        await send_message(first)
        break_once(monkeypatch, "net.sides.select.poll")
        first.finish()
        await gets_421(first)
        assert (await second.ask("NOOP")).startswith(b"250")
