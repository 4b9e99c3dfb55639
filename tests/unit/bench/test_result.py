"""bench.result: the file of a run."""

from __future__ import annotations

import json
import re
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from bench.result import SCHEMA, ResultError, about, read
from tests.unit.bench.results import result

if TYPE_CHECKING:
    from pathlib import Path


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "folder/result.json"
    result().write(path)
    assert read(path) == result()


def test_the_file_has_each_sample_of_each_round(tmp_path: Path) -> None:
    """What others read: these names are kept, or SCHEMA becomes another number."""
    path = tmp_path / "result.json"
    result().write(path)
    whole: dict[str, Any] = json.loads(path.read_text())
    assert whole["schema"] == SCHEMA == 1
    assert set(whole) == {"schema", "about", "samples", "latencies", "highest", "memories", "failures"}
    assert whole["samples"][0] == {
        "subject": "haproxy, TCP mode", "load": "20", "round": 0, "messages": 1000, "seconds": 1.0,
        "cpu": {"user": pytest.approx(0.03), "system": pytest.approx(0.01)}, "judging": {"user": 0.0, "system": 0.0},
    }  # fmt: skip
    assert [each["round"] for each in whole["samples"][:3]] == [0, 1, 2]
    assert set(whole["about"]) == {
        "processor", "cores", "kernel", "python", "load_before", "commit", "dirty", "date", "versions", "options",
    }  # fmt: skip
    assert set(whole["latencies"][0]) == {"subject", "load", "round", "rate", "mails", "through", "direct"}
    assert set(whole["latencies"][0]["through"]) == {"p50", "p99", "highest"}
    assert set(whole["memories"][0]) == {"subject", "processes", "base_kib", "session_kib"}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda whole: whole.update(schema=0), "schema 1"),
        (lambda whole: whole.pop("about"), r"Result: missing \['about'\]"),
        (lambda whole: whole["samples"][0].pop("cpu"), r"Sample: missing \['cpu'\]"),
        (lambda whole: whole["samples"][0].update(speed=1), r"Sample: .*unknown \['speed'\]"),
        (lambda whole: whole["samples"].append(3), "result.json"),
        (lambda whole: whole["latencies"][0]["direct"].pop("p99"), r"Times: missing \['p99'\]"),
    ],
)
def test_another_file_is_refused_and_the_error_says_where(tmp_path: Path, change: Any, why: str) -> None:
    path = tmp_path / "result.json"
    result().write(path)
    whole = json.loads(path.read_text())
    change(whole)
    path.write_text(json.dumps(whole))
    with pytest.raises(ResultError, match=why):
        read(path)


@pytest.mark.parametrize("text", ["", "[]", "{"])
def test_what_is_no_result_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "result.json"
    path.write_text(text)
    with pytest.raises(ResultError, match=re.escape(str(path))):
        read(path)
    with pytest.raises(ResultError, match="No such file"):
        read(tmp_path / "absent")


def test_machine_commit_and_changes(tmp_path: Path) -> None:
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@a.example"]
    assert about({}, tmp_path).commit == "unknown"
    (tmp_path / "file").write_text("1")
    for command in (["init", "-q"], ["add", "file"], ["commit", "-q", "-m", "one"]):
        subprocess.run([*git, *command], check=True)
    found = about({"rounds": 3}, tmp_path)
    assert re.fullmatch("[0-9a-f]{10}", found.commit)
    assert not found.dirty
    (tmp_path / "file").write_text("2")
    assert about({}, tmp_path).dirty
    assert found.options == {"rounds": 3}
    assert found.cores > 0
    assert found.versions["uvloop"]
    assert found.versions["postfix"].startswith("3.")
