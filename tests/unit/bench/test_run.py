"""bench.run, all of `make bench`, with real subjects and very few messages. No time is asserted."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench import plan, run, subjects, tls
from bench.measuring import ALL, Failure
from bench.result import read
from bench.subjects import Build
from tests.unit.bench.results import result

TREE = Path(__file__).parents[3]


@pytest.mark.timeout(600)
def test_every_subject_is_measured(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    loads = ["--loads", plan.MANY, plan.COMMANDS, tls.NEW, tls.REUSED]
    command = [sys.executable, "-m", "bench.run", "--rounds", "1", "--seconds", "0.02", "--json", str(file), *loads]
    done = subprocess.run(command, cwd=TREE, capture_output=True, text=True, timeout=590, check=False)
    assert done.returncode == 0, done.stderr
    found = read(file)
    assert found.failures == []
    name = run.builds(None)[0].name
    filtered = {plan.filtered(name, what) for what in (plan.CAT, plan.WORKER, plan.MILTER)}
    relays = {plan.HAPROXY, plan.RELAY, name, *filtered}
    wanted = {plan.DIRECT, *relays, plan.ORIGINAL, plan.filtered(plan.ORIGINAL, plan.CAT), plan.POSTFIX}
    assert {each.subject for each in found.samples if each.load == plan.MANY} == wanted
    assert {each.subject for each in found.samples if each.load == plan.COMMANDS} == {plan.SPAWNING}
    late = {*relays, plan.ORIGINAL} - {plan.RELAY}
    assert {each.subject for each in found.latencies} == late == set(found.highest)
    encrypted = {tls.HAPROXY_TLS, f"{name}, {tls.TLS}", f"{name}, {tls.CLEAR}"}
    assert {each.subject for each in found.memories} == encrypted
    assert {each.subject for each in found.samples if each.load in {tls.NEW, tls.REUSED}} == encrypted
    assert all(each.base_kib > 1000 and each.session_kib > 0 for each in found.memories)
    for each in (*wanted, plan.SPAWNING, *encrypted):
        assert each in done.stdout
    # What is not our own process is not ours, and what is executed judges.
    cat = next(each for each in found.samples if each.subject == plan.filtered(name, plan.CAT))
    assert cat.judging.user + cat.judging.system > 0


def test_a_stored_result_is_printed_again_and_written_into_the_readme(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "README", tmp_path / "README.md")
    shutil.copy(TREE / "README.md", run.README)
    result().write(tmp_path / "result.json")
    assert run.main(["--stored", str(tmp_path / "result.json"), "--readme"]) == 0
    assert "910 ±1 %" in capsys.readouterr().out
    assert "910 ±1 %" in run.README.read_text("utf-8")


def test_the_readme_is_not_written_from_part_of_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "README", tmp_path / "README.md")
    found = result()
    found.failures.append(Failure(ALL, "round 2", "too busy"))
    found.write(tmp_path / "result.json")
    assert run.main(["--stored", str(tmp_path / "result.json"), "--readme"]) == 1
    assert "README.md stays as it is: round 2: too busy" in capsys.readouterr().err
    for part in (["--quick"], ["--only", "haproxy"], ["--loads", "20"], ["--parts", "tls"]):
        with pytest.raises(SystemExit):
            run.main(["--readme", *part])
        assert "--readme needs the whole run" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["{}", None])
def test_a_stored_file_that_is_no_result(tmp_path: Path, text: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "result.json"
    if text is not None:
        path.write_text(text)
    assert run.main(["--stored", str(path)]) == 1
    assert str(path) in capsys.readouterr().err


def test_what_is_missing_is_named_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert run.missing(run.NEEDED) == ""
    assert run.missing(["sh", "no-such-tool"]) == "missing: no-such-tool: run .ci/packages bench"
    with monkeypatch.context() as changed:
        changed.setattr(run, "USERS", tmp_path / "uid_map")
        run.USERS.write_text("         0       1000          1\n")
        assert run.missing(run.NEEDED).startswith("run it as root")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert run.missing(run.NEEDED).startswith("run it as root")


def test_the_folder_of_a_build_is_the_one_that_runs(tmp_path: Path) -> None:
    """Else two rows of the table would be the same program."""
    package = tmp_path / "proxsmtp_tp"
    (package / "session").mkdir(parents=True)
    for name in ("__init__.py", "session/__init__.py", "session/session.py"):
        (package / name).touch()
    Build("plain", tmp_path).check()
    with pytest.raises(RuntimeError, match=r"session\.py runs, which is plain Python"):
        Build("compiled", tmp_path, compiled=True).check()
    with pytest.raises(RuntimeError, match="not the package of"):
        Build("absent", tmp_path / "absent").check()
    command = [str(subjects.BIN / "proxsmtp-tp"), "--version"]
    environment = {**os.environ, **Build("plain", tmp_path).environment}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert "proxsmtp_tp.cli" in done.stderr  # the package that it found has none
