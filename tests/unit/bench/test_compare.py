"""bench.compare with real daemons of two revisions and very few messages; its table. No time is asserted."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bench import compare, run
from bench.compare import RevisionError
from bench.figures import Difference
from bench.result import read
from tests.unit.bench.results import result, samples

if TYPE_CHECKING:
    from collections.abc import Iterator

TREE = Path(__file__).parents[3]
WAIT = 120.0
WAY = compare.WAYS[0]


def git(repository: Path, *command: str) -> None:
    who = ["-c", "user.name=a", "-c", "user.email=a@a.example"]
    subprocess.run(["git", "-C", str(repository), *who, *command], check=True, capture_output=True)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This package in a repository of its own: a commit, and a change that is not committed."""
    folder = tmp_path_factory.mktemp("repository")
    shutil.copytree(TREE / "proxsmtp_tp", folder / "proxsmtp_tp", ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "one")
    with (folder / "proxsmtp_tp/cli/main.py").open("a") as file:
        file.write("\n# changed\n")
    return folder


@pytest.fixture
def left(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Where temporary folders are; nothing is left in it."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", None)
    for each in (tmp_path, *tmp_path.parents[:2]):
        each.chmod(0o755)
    yield folder
    assert list(folder.iterdir()) == []


@pytest.mark.timeout(600)
def test_two_revisions_with_real_daemons(repository: Path, left: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = left.parent / "compare.json"
    given = ["--base", "HEAD", "--rounds", "6", "--seconds", "0.02", "--only", "20 sessions", "--json", str(file)]
    assert compare.main(given, repository) == 0
    found = read(file)
    assert found.failures == []
    ways = ("20 sessions", "`cat`, 20 sessions")
    assert {(each.subject, each.load) for each in found.samples} == {(n, way) for n in ("base", "now") for way in ways}
    assert found.about.options["base_commit"] == found.about.commit
    assert found.about.dirty
    out = capsys.readouterr().out
    for way in ways:
        assert f"| {way}: messages a second |" in out


def test_each_revision_runs_its_own_package(repository: Path, left: Path) -> None:
    del left
    with compare.builds(repository, "HEAD", None) as (base, now):
        text = [(build.folder / "proxsmtp_tp/cli/main.py").read_text() for build in (base, now)]
        assert [each.endswith("# changed\n") for each in text] == [False, True]
        assert now.folder == repository.resolve()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=str)
def test_an_interrupt_leaves_nothing(repository: Path, left: Path, number: int) -> None:
    script = (
        "import signal, sys, pathlib\nfrom bench import compare\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell ignores it for what is in the background
        f"sys.exit(compare.main(['--base', 'HEAD', '--json', '/dev/null'], pathlib.Path({str(repository)!r})))"
    )
    environment = {**os.environ, "TMPDIR": str(left)}
    command = [sys.executable, "-c", script]
    with subprocess.Popen(
        command, cwd=TREE, env=environment, stderr=subprocess.PIPE, start_new_session=True
    ) as process:
        end = time.monotonic() + WAIT
        while not list(left.glob("*/port-*.log")):
            assert time.monotonic() < end
            assert process.poll() is None
            time.sleep(0.05)
        os.kill(process.pid, number)
        assert process.wait(WAIT) != 0
    running = [path for path in Path("/proc").glob("[0-9]*/cmdline") if str(left).encode() in _read(path)]
    assert running == []


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--base", "no-such-revision"], "BASE=no-such-revision: "),
        (["--base", "HEAD", "--compiled", "build"], "compare without"),
    ],
)
def test_what_cannot_be_checked_out_or_compiled_is_said(
    repository: Path, left: Path, capsys: pytest.CaptureFixture[str], options: list[str], why: str
) -> None:
    del left
    assert compare.main(options, repository) == 1
    assert why in capsys.readouterr().err


@pytest.mark.timeout(600)
def test_the_base_is_compiled_as_its_own_tools_do_it(tmp_path: Path, left: Path) -> None:
    """With mypyc and the tools of this tree, and one small module."""
    del left
    tree = tmp_path / "tree"
    (tree / "proxsmtp_tp/session").mkdir(parents=True)
    for name in ("__init__.py", "session/__init__.py"):
        (tree / "proxsmtp_tp" / name).touch()
    (tree / "proxsmtp_tp/session/session.py").write_text("def double(x: int) -> int:\n    return 2 * x\n")
    (tree / "pyproject.toml").write_text('[tool.proxsmtp-tp]\ncompiled = ["session/session.py"]\n[tool.mypy]\n')
    shutil.copytree(TREE / "tools", tree / "tools", ignore=shutil.ignore_patterns("__pycache__"))
    git(tree, "init", "-q")
    git(tree, "add", ".")
    git(tree, "commit", "-q", "-m", "one")
    now = shutil.copytree(tree, tmp_path / "now")
    compare.compile_tree(now, tmp_path / "work")
    with compare.builds(tree, "HEAD", now) as both:
        for build in both:
            assert list(build.folder.glob("proxsmtp_tp/session/session.*.so"))


def test_a_core_that_does_not_compile_is_quoted(tmp_path: Path) -> None:
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools/__init__.py").touch()
    refusing = "def compile_core(tree, into, work):\n    raise SystemExit('line 3')\n"
    (tmp_path / "tools/compile_core.py").write_text(refusing)
    with pytest.raises(RevisionError, match="line 3"):
        compare.compile_tree(tmp_path, tmp_path / "work")


@pytest.mark.parametrize(
    "options", [["--base", "HEAD", "--rounds", "5"], ["--base", "HEAD", "--only", "no such load"], []], ids=str
)
def test_usage(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        compare.main(options)
    assert ended.value.code == 2
    assert "error: " in capsys.readouterr().err


def test_the_table_says_what_is_noise() -> None:
    found = result()
    base = samples("base", WAY.name, 100, 110, 90, 105, 95, 100)
    now = samples("now", WAY.name, 120, 132, 108, 126, 114, 99, cpu=90e-6)
    found.samples, found.failures = base + now, []
    lines = compare.text(found, [WAY]).splitlines()
    assert lines[2] == "| 20 sessions: messages a second | 100 | 117 | +20.0 % | -1.0 to +20.0 % | within the noise |"
    assert lines[3] == "| 20 sessions: CPU time of a message, µs | 100 | 90.0 | -10.0 % | -10.0 to -10.0 % | better |"


def test_a_revision_that_failed_in_a_round_has_no_row() -> None:
    found = result()
    found.samples = [*samples("base", WAY.name, *[100] * 6), *samples("now", WAY.name, *[100] * 5)]
    text = compare.text(found, [WAY])
    assert "20 sessions" not in text
    assert "failed: proxsmtpd 1.10: 20: 454 later" in text


def test_better_and_worse() -> None:
    more = Difference.of([100.0] * 6, [110.0] * 6)
    assert compare.verdict(more, more_is_better=True) == "better"
    assert compare.verdict(more, more_is_better=False) == "WORSE"
    assert compare.verdict(Difference.of([1.0] * 6, [1.0] * 6), more_is_better=True) == "within the noise"


def test_the_work_folder_can_be_entered_by_other_users(left: Path) -> None:
    with run.work_folder() as folder:
        assert folder.parent == left
        assert folder.stat().st_mode & 0o777 == 0o755
