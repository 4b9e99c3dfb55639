"""The role knows every directive: its variables, their documentation and the names in the file agree with the table."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

from proxsmtp_tp.cli.service_units import UNITS
from proxsmtp_tp.config.directives.table import DIRECTIVES

TREE = Path(__file__).resolve().parents[3]
ROLE = TREE / "ansible/roles/proxsmtp_tp"
HINT = "type `python ansible/variables.py`"


@pytest.fixture(scope="module")
def variables() -> Any:
    """ansible/variables.py, which is a program and in no package."""
    spec = importlib.util.spec_from_file_location("variables", TREE / "ansible/variables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def names(file: str, pattern: str) -> list[str]:
    return re.findall(pattern, (ROLE / file).read_text(), re.MULTILINE)


def test_what_is_written_from_the_table_is_up_to_date(variables: Any) -> None:
    for path, text in variables.files().items():
        assert path.read_text() == text, f"{path.name} is not what the table says: {HINT}"


def test_each_value_with_blanks_has_a_line_of_its_own() -> None:
    """Joined by commas in one line, the second `Tls` would be a condition of the first."""
    lined = names("vars/main/directives.yml", r"\{name: (\w+), .*lines: true\}$")
    assert lined == ["Filter", "MilterMacro", "Tls", "UpstreamTls", "TlsCertificate"]
    assert [
        row.name for row in DIRECTIVES if row.kind.repeatable and " " in row.kind.syntax.removesuffix(" ...")
    ] == lined


def test_every_directive_has_a_documented_variable_and_a_specification(variables: Any) -> None:
    wanted = [variables.variable(row) for row in DIRECTIVES]
    own = names("defaults/main/role.yml", r"^proxsmtp_tp_(\w+):")
    assert names("defaults/main/directives.yml", r"^proxsmtp_tp_(\w+):") == wanted
    assert names("defaults/main/directives.yml", r"^# (?!Default)([A-Z]\w+): ") == [row.name for row in DIRECTIVES]
    assert names("meta/argument_specs.yml", r"^      proxsmtp_tp_(\w+):") == [*own, *wanted]


def test_no_variable_of_the_role_is_that_of_a_directive() -> None:
    own = set(names("defaults/main/role.yml", r"^(\w+):")) | set(names("vars/main/role.yml", r"^(\w+):"))
    assert own.isdisjoint(names("defaults/main/directives.yml", r"^(\w+):"))


def test_the_role_brings_the_units_of_the_project() -> None:
    assert (ROLE / "files/systemd").resolve() == TREE / "systemd"
    assert names("vars/main/role.yml", r"^  - (proxsmtp-tp.*\.(?:service|target))$") == list(UNITS)


def test_the_version_that_the_role_installs_is_this_one() -> None:
    (project,) = re.findall(r'^version = "(.*)"', (TREE / "pyproject.toml").read_text(), re.MULTILINE)
    assert names("defaults/main/role.yml", r"^proxsmtp_tp_version: (\S+)") == [project]
