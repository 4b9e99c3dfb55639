"""doctor: every fix that it can print is typed by a test."""

from __future__ import annotations

import ast
import importlib
import inspect
from pathlib import Path

from proxsmtp_tp.gateway import doctor
from proxsmtp_tp.gateway.doctor import fixes
from tests import typed_fixes

SOURCES = [path for path in sorted(Path(doctor.__file__).parent.glob("*.py")) if path.name != "fixes.py"]
TESTS = Path(typed_fixes.__file__).parent


def calls(source: Path) -> list[ast.Call]:
    """Every call of a function by its plain name."""
    tree = ast.parse(source.read_text())
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]


def literals(node: ast.expr, source: Path) -> set[str]:
    """The rows that the first argument of `fix` may be: a constant, or a name with constants."""
    if isinstance(node, ast.Constant):
        return {str(node.value)}
    assert isinstance(node, ast.Name), f"{source}:{node.lineno}"
    given = [
        item.value
        for item in ast.walk(ast.parse(source.read_text()))
        if isinstance(item, ast.Assign) and ast.unparse(item.targets[0]) == node.id
    ]
    return {str(c.value) for value in given for c in ast.walk(value) if isinstance(c, ast.Constant)}


def test_every_fix_is_a_row_and_every_row_is_used() -> None:
    """`Finding.fix` takes only a Fix (mypy), and only `fixes` makes one."""
    used = set[str]()
    for source in SOURCES:
        for call in calls(source):
            name = ast.unparse(call.func)
            assert name != "Fix", f"{source}:{call.lineno}: a fix is a row of FIXES"
            if name == "fix":
                used |= literals(call.args[0], source)
    assert used & set(fixes.FIXES) == set(fixes.FIXES)


def test_every_fix_is_typed_by_a_test() -> None:
    found = set[str]()
    for path in sorted((*TESTS.glob("gateway/test_*.py"), *TESTS.glob("deploy/test_*.py"))):
        if "typed_fixes" in path.read_text():
            module = importlib.import_module(".".join(path.relative_to(TESTS.parent).with_suffix("").parts))
            for name, test in inspect.getmembers(module, inspect.isfunction):
                found |= getattr(test, "fixes", set()) if name.startswith("test_") else set()
    assert set(fixes.FIXES) - found == set(), "no test types these fixes"
    assert found <= set(fixes.FIXES)


def test_words_are_quoted() -> None:
    made = fixes.fix("untracked by nft", chain=["inet", "a b", "c"], handle=7)
    assert made == "nft delete rule inet 'a b' c handle 7"
    start = fixes.fix("start, by hand", file="/a b")
    assert fixes.fix("restart, by hand", pid=7, start=start) == f"kill 7; sleep 1; {start}"
    assert start == "proxsmtp-tp serve -f '/a b'"
