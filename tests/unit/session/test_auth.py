"""AUTH and X-EXPS: what passes, what is too long, and no secret in the log."""

from __future__ import annotations

import pytest

from proxsmtp_tp.session.options import Options
from proxsmtp_tp.smtp import answers
from proxsmtp_tp.smtp.lines import COMMAND_LIMIT
from tests.unit.session.playbook import (
    C,
    S,
    client,
    introduced,
    server,
)


class TestAuth:
    @pytest.mark.parametrize("verb", ["AUTH", "X-EXPS"])
    def test_continuation_lines_are_opaque(self, verb: str) -> None:
        """X-EXPS is Exchange's AUTH among its own."""
        assert (
            introduced(None, f"{verb} LOGIN")
            >> C(f"{verb} LOGIN")
            << server(f"{verb} LOGIN")
            >> S("334 VXNlcg==")
            << client("334 VXNlcg==")
            >> C("DATA")
            << server("DATA")
            >> S("334 UGFzcw==")
            << client("334 UGFzcw==")
            >> C("QUIT")
            << server("QUIT")
            >> S("235 ok")
            << client("235 ok")
            >> C("NOOP")
            << server("NOOP")
        )

    @pytest.mark.parametrize("verb", ["AUTH", "X-EXPS"])
    def test_no_secret_in_the_log(self, verb: str) -> None:
        play = introduced(Options(trace=True), f"{verb} PLAIN")
        play = play >> C(f"{verb} PLAIN c2VjcmV0") << server(f"{verb} PLAIN c2VjcmV0")
        assert play >> S("535 no") << client("535 no")
        assert any(f"CLIENT < {verb} ..." in line for line in play.logged)
        assert not any("c2VjcmV0" in line for line in play.logged)

    LONG = "A" * (COMMAND_LIMIT - 2)

    @pytest.mark.parametrize("rest", ["", "=", "==", "DATA", "+/"])
    @pytest.mark.parametrize("verb", ["AUTH", "X-EXPS"])
    def test_a_long_line_of_base64_passes(self, verb: str, rest: str) -> None:
        """12288 octets (RFC 4954 section 4): a Kerberos ticket."""
        line = f"{verb} GSSAPI {self.LONG}{rest}"
        play = introduced(None, "AUTH GSSAPI") >> C(line) << server(line) >> S("334 x") << client("334 x")
        assert play >> C(self.LONG + self.LONG + rest) << server(self.LONG + self.LONG + rest)

    @pytest.mark.parametrize("rest", [" ", "MAIL FROM:<evil@c.example>", "XCLIENT ADDR=127.0.0.1", "=A", "BDAT 9 LAST"])
    @pytest.mark.parametrize("verb", ["AUTH", "X-EXPS"])
    def test_a_long_line_is_no_two_commands_for_a_server_that_cuts_it(self, verb: str, rest: str) -> None:
        play = introduced(None, "AUTH GSSAPI")
        play = play >> C(f"{verb} GSSAPI {self.LONG}{rest}") << client(answers.LONG_AUTH_SYNTAX.wire)
        play = play >> C(f"{verb} GSSAPI") << server(f"{verb} GSSAPI") >> S("334 x") << client("334 x")
        assert play >> C(self.LONG + rest + "=") << server("*")
        assert any("two commands" in line for line in play.logged)

    def test_no_long_line_in_a_transaction(self) -> None:
        """Its rest could be DATA."""
        line = f"AUTH GSSAPI {self.LONG}DATA"
        play = introduced(None, "AUTH GSSAPI", "PIPELINING")
        play = play >> C("MAIL FROM:<a@c.example>") << server("MAIL FROM:<a@c.example>")
        play.session.feed(C(line))
        play = play >> S("250 ok") << client(b"250 ok\r\n" + answers.LONG_AUTH_SYNTAX.wire)
        assert play >> C(line) << client(answers.LONG_AUTH_SYNTAX.wire)

    def test_a_bad_continuation_cancels(self) -> None:
        assert (
            introduced(None, "AUTH LOGIN")
            >> C("AUTH LOGIN")
            << server("AUTH LOGIN")
            >> S("334 x")
            << client("334 x")
            >> C(b"ab\0c\r\n")
            << server("*")
            >> S("501 cancelled")
            << client("501 cancelled")
            >> C("NOOP")
            << server("NOOP")
        )
