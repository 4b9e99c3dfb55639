"""How large a message may be: the server's SIZE where a filter judges, MessageSizeLimit everywhere (RFC 1870)."""

from __future__ import annotations

import pytest

from proxsmtp_tp.session.effects import CloseClient, CloseServer, FilterAbort, FilterData, FilterFinish
from proxsmtp_tp.session.options import Options
from proxsmtp_tp.smtp import answers
from tests.unit.session.playbook import C, S, addressed, client, fed, greeted, introduced, server

FILTERED = Options(filtered=True)
OWN = Options(filtered=True, size_limit=10)
STREAMED = Options(size_limit=10)
DECLARED = answers.DECLARED_TOO_LARGE.wire
TOO_LARGE = answers.MESSAGE_TOO_LARGE.wire


def test_the_replies() -> None:
    assert DECLARED.startswith(b"552 5.3.4 ")
    assert TOO_LARGE.startswith(b"552 5.3.4 ")
    assert DECLARED != TOO_LARGE


@pytest.mark.parametrize(
    ("options", "keyword", "declared", "refused"),
    [
        (FILTERED, "SIZE 1000", "SIZE=1001", True),
        (FILTERED, "SIZE 1000", "SIZE=1000", False),
        (FILTERED, "size 1000", "Body=8BITMIME size=00001001", True),
        (FILTERED, "SIZE 1000", "SIZE=" + "9" * 200, True),
        (FILTERED, "SIZE 1000", "SIZE=many", False),
        (FILTERED, "SIZE 1000", "SIZE", False),
        (FILTERED, "SIZE 1000", "XSIZE=1001", False),
        (FILTERED, "SIZE 0", "SIZE=1001", False),
        (FILTERED, "SIZE", "SIZE=1001", False),
        (FILTERED, "SIZE much", "SIZE=1001", False),
        (FILTERED, "8BITMIME", "SIZE=1001", False),
        (Options(), "SIZE 1000", "SIZE=1001", False),
        (Options(size_limit=500), "SIZE 1000", "SIZE=501", True),
        (Options(size_limit=500), "8BITMIME", "SIZE=501", True),
        (Options(size_limit=500), "SIZE 400", "SIZE=450", False),
        (Options(filtered=True, size_limit=500), "SIZE 400", "SIZE=450", True),
        (Options(filtered=True, size_limit=500), "SIZE 1000", "SIZE=501", True),
        (Options(filtered=True, size_limit=500), "SIZE 0", "SIZE=501", True),
    ],
)
def test_a_declared_size(options: Options, keyword: str, declared: str, refused: bool) -> None:
    play = introduced(options, keyword)
    play = play >> C(f"MAIL FROM:<a@b.example> {declared}")
    if refused:
        assert play << client(DECLARED)
        assert any("refused" in line for line in play.logged)
    else:
        assert play << server(f"MAIL FROM:<a@b.example> {declared}")


@pytest.mark.parametrize(
    ("limit", "offered", "shown"),
    [
        (0, "SIZE 1000", "SIZE 1000"),
        (500, "SIZE 1000", "SIZE 500"),
        (500, "size 0", "SIZE 500"),
        (500, "SIZE", "SIZE 500"),
        (500, "SIZE 500", "SIZE 500"),
        (500, "Size 400", "Size 400"),
        (500, "8BITMIME", "8BITMIME"),
    ],
)
def test_what_the_client_sees(limit: int, offered: str, shown: str) -> None:
    play = greeted(Options(size_limit=limit))
    play = play >> C("EHLO c.example") << server("EHLO c.example") >> S(f"250-mx\n250-{offered}\n250 DSN")
    assert play << client(f"250-mx\n250-{shown}\n250 DSN")


@pytest.mark.parametrize(("options", "keyword"), [(FILTERED, "SIZE 10"), (OWN, "SIZE 1000"), (OWN, "DSN")])
@pytest.mark.parametrize("declared", [False, True])
def test_a_message_that_is_larger_is_dropped_as_soon_as_it_is_and_refused_at_its_end(
    options: Options, keyword: str, declared: bool
) -> None:
    """A declared size buys nothing; a dot that was stuffed, and the end of data, do not count."""
    play = addressed(options, keyword)
    fed(play.session, C("DATA"))
    play = play >> C(b"..34567\r\n") << FilterData(b".34567\r\n") >> C(b"9") << FilterData(b"9")
    play = play >> C(b"xx") << FilterAbort()
    play = play >> C(b"more\r\n" * (1000 if declared else 1))
    assert play >> C(b".\r\n") << client(TOO_LARGE) << server("RSET")
    assert any("more than 10 octets" in line for line in play.logged)


@pytest.mark.parametrize("options", [FILTERED, OWN])
def test_a_message_of_the_very_size_passes(options: Options) -> None:
    play = addressed(options, "SIZE 10")
    fed(play.session, C("DATA"))
    assert play >> C(b"12345678\r\n.\r\n") << FilterData(b"12345678\r\n") << FilterFinish()


def test_all_at_once() -> None:
    play = addressed(OWN)
    fed(play.session, C("DATA"))
    assert play >> C(b"123456789\r\n.\r\n") << FilterAbort() << client(TOO_LARGE) << server("RSET")


def test_without_a_filter_the_server_never_sees_the_end() -> None:
    play = addressed(STREAMED)
    fed(play.session, C("DATA"))
    fed(play.session, S("354 go"))
    play = play >> C(b"123456\r\n") << server(b"123456\r\n") >> C(b"9ab\r\n") << CloseServer(abort=True)
    assert play >> C(b"c\r\n.\r\n") << client(TOO_LARGE + answers.SERVER_LOST.wire) << CloseClient()


def test_without_a_filter_the_servers_limit_is_its_own_business() -> None:
    play = addressed(Options(), "SIZE 10")
    fed(play.session, C("DATA"))
    fed(play.session, S("354 go"))
    assert play >> C(b"1234567890\r\n.\r\n") << server(b"1234567890\r\n.\r\n")
