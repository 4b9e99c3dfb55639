"""What the dialogue takes of the configuration."""

from __future__ import annotations

from proxsmtp_tp.config.settings import BareNewline, ConnectFailure, FilterType, Settings, TransparentProxy
from proxsmtp_tp.session.options import HIDDEN_NAME, options_of
from proxsmtp_tp.smtp import answers


def test_reject_needs_no_filter() -> None:
    settings = Settings(filter_type=FilterType.REJECT, filter_command="ignored")
    options = options_of(settings, answers.NO_ARGUMENT)
    assert not options.filtered
    assert options.reject is answers.NO_ARGUMENT


def test_the_name_is_hidden_where_the_client_did_not_choose_the_server() -> None:
    assert options_of(Settings(), None).hidden_name == HIDDEN_NAME
    for mode in (TransparentProxy.CLIENT, TransparentProxy.FULL):
        assert options_of(Settings(transparent_proxy=mode), None).hidden_name is None


def test_bare_newlines() -> None:
    assert not options_of(Settings(), None).refuse_bare_newlines
    assert options_of(Settings(bare_newline=BareNewline.REJECT), None).refuse_bare_newlines


def test_whom_a_failed_connection_resets() -> None:
    """By default whoever dialled the server himself; in fixed mode the client dialled us."""
    assert not options_of(Settings(), None).reset_unreachable
    assert options_of(Settings(connect_failure=ConnectFailure.RESET), None).reset_unreachable
    for mode in (TransparentProxy.CLIENT, TransparentProxy.FULL):
        assert options_of(Settings(transparent_proxy=mode), None).reset_unreachable
        reply = Settings(transparent_proxy=mode, connect_failure=ConnectFailure.REPLY)
        assert not options_of(reply, None).reset_unreachable
