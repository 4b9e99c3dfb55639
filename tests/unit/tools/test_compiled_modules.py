"""What mypyc compiles, and what may not be written there: docs/architecture.md, "Compiled modules", says why."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

from proxsmtp_tp.service.version import BUILD
from tools.compile_core import modules

TREE = Path(__file__).parents[3]
COMPILED = modules(TREE)
_PLAIN = {"Enum", "IntEnum", "Flag", "IntFlag", "NamedTuple", "Protocol", "_Name"}
"""Bases of classes that stay ordinary Python classes."""


def parsed(path: str) -> ast.Module:
    return ast.parse((TREE / path).read_text("utf-8"))


def found(tree: ast.Module) -> list[str]:
    """What may not be written, with its line."""
    return [*_field_types(tree), *_handlers(tree), *_class_values(tree), *_dynamic(tree)]


def _is_dataclass(node: ast.ClassDef) -> bool:
    return any("dataclass" in ast.unparse(each) for each in node.decorator_list)


def _has_fields(node: ast.ClassDef) -> bool:
    return _is_dataclass(node) or any(ast.unparse(base).endswith("NamedTuple") for base in node.bases)


def _field_types(tree: ast.Module) -> list[str]:
    """A type of a field of a dataclass or NamedTuple is loaded when the module is: a class that is not there yet is a
    null pointer.
    """
    late = {
        alias.asname or alias.name
        for node in tree.body
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for each in node.body
        if isinstance(each, ast.ImportFrom) and (each.module or "").startswith("proxsmtp_tp")
        for alias in each.names
    }
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    wrong = []
    for place, node in enumerate(classes):
        later = late | {each.name for each in classes[place + 1 :]}
        for field in node.body if _has_fields(node) else []:
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.annotation, ast.Name)
                and field.annotation.id in later
            ):
                wrong.append(f"{field.lineno}: {field.annotation.id} is not loaded before {node.name}")
            elif isinstance(field, ast.AnnAssign):
                named = {each.id for each in ast.walk(field.annotation) if isinstance(each, ast.Name)} & late
                wrong += [f"{field.lineno}: {name} of {node.name} is imported under TYPE_CHECKING" for name in named]
    return wrong


def _handlers(tree: ast.Module) -> list[str]:
    """The variable of an except clause has the type of the first one of its function."""
    wrong = []
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            types: dict[str, str] = {}
            for handler in ast.walk(node):
                if isinstance(handler, ast.ExceptHandler) and handler.name and handler.type:
                    kind = ast.unparse(handler.type)
                    if types.setdefault(handler.name, kind) != kind:
                        wrong.append(f"{handler.lineno}: {handler.name} is a {types[handler.name]} above")
    return wrong


def _class_values(tree: ast.Module) -> list[str]:
    """A value in the body of a class belongs to objects, which an exception's class does not make: ClassVar."""
    wrong = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.ClassDef) or _is_dataclass(node):
            continue
        bases = {ast.unparse(base).split(".")[-1] for base in node.bases}
        if bases & _PLAIN:
            continue
        wrong += [f"{each.lineno}: write ClassVar" for each in node.body if _is_value(each)]
    return wrong


def _is_value(node: ast.stmt) -> bool:
    """Whether it gives a class a value that each object gets, in compiled code."""
    if isinstance(node, ast.Assign):
        return ast.unparse(node.targets[0]) not in {"__slots__", "__hash__"}
    return (
        isinstance(node, ast.AnnAssign) and bool(node.value) and not ast.unparse(node.annotation).startswith("ClassVar")
    )


def _dynamic(tree: ast.Module) -> list[str]:
    """Compiled classes have no __dict__, no weak references, no metaclass; mypyc knows no nested classes."""
    wrong = []
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)) and "weakref" in ast.unparse(node):
            wrong.append(f"{node.lineno}: weakref")
        elif isinstance(node, ast.Attribute) and node.attr == "__dict__":
            wrong.append(f"{node.lineno}: __dict__")
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in {"setattr", "delattr", "exec", "eval"}:
            wrong.append(f"{node.lineno}: {ast.unparse(node.func)}")
        elif isinstance(node, ast.ClassDef):
            wrong += [f"{node.lineno}: a metaclass" for _ in node.keywords]
            wrong += [
                f"{each.lineno}: a nested class"
                for each in ast.walk(node)
                if each is not node and isinstance(each, ast.ClassDef)
            ]
    return wrong


@pytest.mark.parametrize("path", COMPILED)
def test_nothing_that_may_not_be_written(path: str) -> None:
    assert not found(parsed(path))


@pytest.mark.parametrize(
    "source",
    [
        "if TYPE_CHECKING:\n from proxsmtp_tp.x import A\n@dataclass\nclass B:\n a: A",
        "if TYPE_CHECKING:\n from proxsmtp_tp.x import A\n@dataclass\nclass B:\n a: A | None",
        "@dataclass(slots=True)\nclass B:\n a: A\nclass A: pass",
        "if TYPE_CHECKING:\n from proxsmtp_tp.x import A\nclass B(NamedTuple):\n a: A",
        "def f():\n try: g()\n except A as e: pass\n except B as e: pass",
        "class E(Exception):\n a = 1",
        "class E(Exception):\n a: int = 1",
        "import weakref",
        "setattr(a, b, c)",
        "class A(metaclass=B): pass",
        "class A:\n class B: pass",
        "a.__dict__",
    ],
)
def test_each_is_found(source: str) -> None:
    assert len(found(ast.parse(source))) == 1


@pytest.mark.parametrize("path", COMPILED)
def test_one_build_runs(path: str) -> None:
    """All of these modules are compiled, or none."""
    module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
    assert str(module.__file__).endswith(".py") is (BUILD == "pure")


def test_nothing_else_is_compiled() -> None:
    extensions = {str(path.relative_to(TREE)).split(".")[0] + ".py" for path in (TREE / "proxsmtp_tp").rglob("*.so")}
    assert extensions == (set(COMPILED) if BUILD == "compiled" else set())
