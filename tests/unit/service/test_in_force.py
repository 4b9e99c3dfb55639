"""What is said of the configuration in force: by the master's report, in lines for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.config.reader import load_config
from proxsmtp_tp.service.in_force import InForce, describe

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.conf"
    path.write_text("OutAddress: 25\n")
    return path


class Reader:
    """Counts how often the file is read."""

    def __init__(self, path: Path) -> None:
        self.path, self.times = path, 0

    def __call__(self) -> object:
        self.times += 1
        return load_config(str(self.path))


def made(path: Path) -> tuple[InForce, Reader]:
    reader = Reader(path)
    return InForce(str(path), reader, load_config(str(path)).settings), reader  # type: ignore[arg-type]


def test_a_file_that_did_not_change_is_read_once(file: Path) -> None:
    found, reader = made(file)
    assert [found.report()["file_state"] for _ in range(3)] == ["in force"] * 3
    assert reader.times == 1
    file.write_text("# a comment\nOutAddress: 25\n")
    assert found.report()["file_state"] == "in force"
    assert reader.times == 2
    lines, wrong = describe(found.report())
    assert not wrong
    assert len(lines) == 1
    assert str(file) in lines[0]


def test_what_is_not_taken_is_wrong_and_named(file: Path) -> None:
    found, _ = made(file)
    file.write_text("OutAddress: 26\n")
    lines, wrong = describe(found.report())
    assert wrong
    assert "the file has changed since then: a reload uses it" in lines
    file.write_text("OutAddress: here:there\n")
    lines, wrong = describe(found.report())
    assert wrong
    assert any("OutAddress" in line for line in lines)
    found.reload_begins()
    found.reload_failed(["no such thing"])
    lines, wrong = describe(found.report())
    assert wrong
    assert "  no such thing" in lines
    file.write_text("OutAddress: 27\n")
    found.reload_begins()
    found.reload_done(load_config(str(file)).settings, ["User"])
    lines, wrong = describe(found.report())
    assert wrong
    assert lines[1:] == ["changed, and used after a restart only: User"]
    found.reload_begins()
    found.reload_done(load_config(str(file)).settings, [])
    assert describe(found.report())[1] is False
    assert found.report()["reload"]["number"] == 3


def test_a_flood_of_problems_is_cut(file: Path) -> None:
    found, _ = made(file)
    file.write_text("Nonsense: 1\n" * 1000)
    assert len(found.report()["file_problems"]) == 20
