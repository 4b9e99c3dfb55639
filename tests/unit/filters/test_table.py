"""The filter that a configuration asks for."""

from __future__ import annotations

import pytest

from proxsmtp_tp.config.filter_lines import MemberType
from proxsmtp_tp.config.settings import FilterDefault, FilterType, Settings
from proxsmtp_tp.filters import table
from proxsmtp_tp.filters.command import CommandFilter
from proxsmtp_tp.filters.file import FileRun
from proxsmtp_tp.filters.launcher import Command
from proxsmtp_tp.filters.pipe import PipeRun
from proxsmtp_tp.filters.types import TYPES
from proxsmtp_tp.net.admission import Admission


@pytest.mark.parametrize("kind", list(FilterType))
def test_nothing_is_judged_without_a_command(kind: FilterType) -> None:
    assert table.make_filter(Settings(filter_type=kind)) is None


def test_nothing_is_judged_where_everything_is_refused() -> None:
    assert table.make_filter(Settings(filter_type=FilterType.REJECT, filter_command="cat")) is None


@pytest.mark.parametrize(("kind", "run"), [(FilterType.PIPE, PipeRun), (FilterType.FILE, FileRun)])
def test_a_command_with_all_that_is_configured(kind: FilterType, run: type) -> None:
    settings = Settings(
        filter_command="cat; true",
        filter_type=kind,
        filter_timeout=7,
        temp_directory="/var/spool/x",
        filter_default=FilterDefault.DEFER,
        filter_processes=10,
        workers=3,
    )
    filter_ = table.make_filter(settings)
    assert isinstance(filter_, CommandFilter)
    launcher = filter_._launcher
    assert filter_._run is run
    assert launcher.command == Command("cat; true", 7, FilterDefault.DEFER)
    assert launcher.space.directory == "/var/spool/x"
    assert launcher.limit.maximum == 10


def test_the_limit_is_one_for_all_workers() -> None:
    """However many there are: `places` knows what the others run."""
    shared = Admission(10, 2)
    for worker in range(2):
        settings = Settings(filter_command="cat", filter_processes=9, workers=2)
        filter_ = table.make_filter(settings, shared.tally(worker), shared.places(worker))
        assert isinstance(filter_, CommandFilter)
        assert filter_._launcher.limit.maximum == 9
        assert filter_._launcher.limit._places.wakeup is not None


@pytest.mark.parametrize("kind", [kind for kind in FilterType if kind is not FilterType.REJECT])
def test_every_type_has_a_filter(kind: FilterType) -> None:
    made = table.make_filter(Settings(filter_type=kind, filter_command="10024"))
    assert made is not None, f"filters/table.py has no row for FilterType {kind.value}"


def test_a_kind_without_a_row_is_an_error_not_a_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise 2: a configured filter that can not be made must not let mail through."""
    monkeypatch.setattr(table, "_FILTERS", {})
    with pytest.raises(ValueError, match="pipe"):
        table.make_filter(Settings(filter_command="cat"))


def test_every_type_of_a_chain_has_a_row() -> None:
    assert set(TYPES) == set(MemberType)
