"""The man pages: valid mdoc, and in agreement with the program."""

from __future__ import annotations

import functools
import re
import subprocess
import sys
from dataclasses import fields
from enum import Enum
from pathlib import Path

import pytest

from proxsmtp_tp.cli.main import SUBCOMMANDS
from proxsmtp_tp.config.filter_lines import FilterLine, MemberType, settings_of
from proxsmtp_tp.filters import launcher
from proxsmtp_tp.telemetry.counters import Counter
from proxsmtp_tp.telemetry.sessions import SessionPhase
from tests.unit.docs import directives

MANUAL = Path(__file__).parents[3] / "docs/man"
PAGES = sorted(MANUAL.iterdir())
# What mandoc says of every page that is not installed, and of a machine whose index of man pages is old.
OF_THE_MACHINE = ("referenced manual not found", "outdated mandoc.db")


def text(name: str) -> str:
    """A page's mdoc."""
    return (MANUAL / name).read_text("utf-8")


def test_there_are_three_pages() -> None:
    assert [page.name for page in PAGES] == ["proxsmtp-tp.8", "proxsmtpd.8", "proxsmtpd.conf.5"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_mandoc_finds_nothing(page: Path) -> None:
    done = subprocess.run(["mandoc", "-T", "lint", str(page)], capture_output=True, text=True, timeout=60, check=False)
    said = [
        line for line in (done.stdout + done.stderr).splitlines() if not any(known in line for known in OF_THE_MACHINE)
    ]
    assert said == []


def test_the_directives_are_those_of_the_table() -> None:
    assert directives.in_page(text("proxsmtpd.conf.5")) == directives.made(), (
        "type `python -m tests.unit.docs.directives`"
    )


def test_sentences_and_macros_in_generated_text() -> None:
    """What mdoc would take for its own is escaped."""
    assert directives._escaped(".Dd \\r 'x'") == "\\&.Dd \\er \\(aqx\\(aq"
    assert directives._sentences("One. Two, i.e. three.") == ["One.", "Two, i.e. three."]


@functools.cache
def help_of(subcommand: str) -> str:
    """What `proxsmtp-tp SUBCOMMAND --help` prints."""
    command = [sys.executable, "-c", "from proxsmtp_tp.cli.main import main; main()", subcommand, "--help"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


@pytest.mark.parametrize("subcommand", SUBCOMMANDS)
def test_every_option_is_in_the_manual(subcommand: str) -> None:
    options = set(re.findall(r"(?<![\w-])--([a-z][a-z-]+)", help_of(subcommand))) - {"help"}
    manual = text("proxsmtp-tp.8")
    missing = [option for option in sorted(options) if not re.search(rf"[ ,]-{option}\b(?!-)", manual)]
    assert missing == [], f"docs/man/proxsmtp-tp.8 does not describe these options of {subcommand}"
    described = re.search(rf"^\.(It )?Cm .*\b{subcommand}\b", manual, re.MULTILINE)
    assert described, f"docs/man/proxsmtp-tp.8 needs an item `.It Cm {subcommand}`"


@pytest.mark.parametrize("subcommand", SUBCOMMANDS)
def test_every_option_is_in_the_synopsis(subcommand: str) -> None:
    """Where the synopsis says "rule options", those stand below in a list of their own."""
    manual = text("proxsmtp-tp.8")
    usage = help_of(subcommand).partition("\n\n")[0]
    parts = [part for part in manual.partition(".Sh DESCRIPTION")[0].split("\n.Nm\n") if is_of(part, subcommand)]
    assert parts, f"the SYNOPSIS of docs/man/proxsmtp-tp.8 needs `.Nm`, and in the next line `.Cm {subcommand}`"
    synopsis = parts[0]
    rules = manual.partition("Rule options override")[2].partition(".El")[0] if "rule options" in synopsis else ""
    options = set(re.findall(r"(?<![\w-])--?([a-zA-Z][a-z-]*)", usage)) - {"h"}
    missing = [name for name in sorted(options) if not re.search(rf"[ ,]-?{name}\b(?!-)", synopsis + rules)]
    assert missing == [], f"the SYNOPSIS of docs/man/proxsmtp-tp.8 lacks these options of {subcommand}"


def is_of(synopsis: str, subcommand: str) -> bool:
    """Whether this part of the synopsis is of that subcommand."""
    first = synopsis.partition("\n")[0]
    return first.startswith(".Cm ") and subcommand in first.split()


@pytest.mark.parametrize("counter", Counter, ids=lambda counter: counter.name)
def test_every_counter_is_in_the_manual(counter: Counter) -> None:
    shown = counter.name.lower().replace("_", " ")
    hint = f"docs/man/proxsmtp-tp.8 does not say at `.It Cm status` what `.Li {shown}` counts"
    assert f"\n.Li {shown}\n" in text("proxsmtp-tp.8"), hint


def test_every_phase_of_sessions_is_in_the_manual() -> None:
    listed = text("proxsmtp-tp.8").split("\n.It Cm sessions\n")[1].split("\n.El\n")[0]
    assert sorted(re.findall(r"^\.It Li (\w+)$", listed, re.MULTILINE)) == sorted(
        phase.name.lower() for phase in SessionPhase
    )


def test_every_variable_of_filters_is_in_the_manual() -> None:
    listed = re.findall(r"^\.It Ev (\w+)$", text("proxsmtpd.8"), re.MULTILINE)
    assert sorted(listed) == sorted(name.decode() for name in launcher._OWN_VARIABLES)


def test_pages_refer_to_each_other() -> None:
    names = {(page.stem, page.suffix[1:]) for page in PAGES}
    for name, section in names:
        page = text(f"{name}.{section}")
        referred = set(re.findall(r"^\.Xr (\S+) (\d)", page, re.MULTILINE))
        assert names - {(name, section)} <= referred, page


@pytest.mark.parametrize("name", ["proxsmtpd.8", "proxsmtpd.conf.5"])
def test_the_author_of_the_original_is_named(name: str) -> None:
    assert ".An Stef Walter Aq Mt stef@memberwebs.com" in text(name)


def test_the_filter_directive_has_each_type_and_setting_with_its_default() -> None:
    section = text("proxsmtpd.conf.5").split(".Sh THE FILTER DIRECTIVE\n")[1].split(".Sh ")[0]
    assert [
        kind.value for kind in MemberType if not re.search(rf"^\.It.*\b{kind.value}\b", section, re.MULTILINE)
    ] == []
    defaults = {field.name.replace("_", "-"): field.default for field in fields(FilterLine)}
    for name in sorted({name for kind in MemberType for name in settings_of(kind)}):
        found = re.search(rf"^\.It.* {name} Ns Li =(\S*)", section, re.MULTILINE)
        assert found is not None, name
        default = defaults[name]
        if isinstance(default, Enum):
            assert found[1] == default.value
        elif isinstance(default, int | float):
            assert found[1] == f"{default:g}"
