"""The reader: any bytes are Settings or named problems; what 1.10 reads, it reads the same."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxsmtp_tp.config.addresses import InetAddress, UnixAddress
from proxsmtp_tp.config.directives.table import DIRECTIVES
from proxsmtp_tp.config.reader import ConfigError, instance_name, load_config, parse_config, printable, read_config
from proxsmtp_tp.config.settings import Settings
from proxsmtp_tp.config.values import parse_instance

if TYPE_CHECKING:
    from pathlib import Path

    from proxsmtp_tp.config.addresses import Address

OUT = b"OutAddress: 192.0.2.1:25\n"


def read(data: bytes) -> Settings:
    return parse_config(data, "/etc/gateway.conf").settings


def problems(data: bytes) -> list[tuple[int, str]]:
    with pytest.raises(ConfigError) as caught:
        parse_config(data, "/etc/gateway.conf")
    return [(problem.line, problem.text) for problem in caught.value.problems]


def warnings(data: bytes) -> list[tuple[int, str]]:
    return [(problem.line, problem.text) for problem in parse_config(data, "/etc/gateway.conf").warnings]


def test_the_sample_of_the_original() -> None:
    sample = b"# a comment\n\nOutAddress: 10026\n#FilterCommand: tee\nUser: _proxsmtp\n\n"
    assert read(sample) == Settings(out_address=InetAddress("", 10026), user="_proxsmtp", instance="gateway")


def test_space_case_and_line_ends_as_the_original_takes_them() -> None:
    plain = read(b"OutAddress: 192.0.2.1:25\nTimeOut: 5\n")
    assert read(b"  outADDRESS \t:\t192.0.2.1:25  \r\n\v\fTIMEOUT:5") == plain


def test_only_the_first_colon_divides() -> None:
    assert read(OUT + b"Header: X-A: b:c \n").header == "X-A: b:c"


def test_a_hash_in_a_value_is_no_comment() -> None:
    assert read(OUT + b"FilterCommand: sh # x\n").filter_command == "sh # x"


@pytest.mark.parametrize(
    "line",
    [
        "Listen: 10025 # here", "Listen: # 10025", "TransparentProxy: on # x",
        "MaxConnections: 30 #x",
        "TimeOut: 5\t# s", "Skip: authenticated # x", "FilterType: pipe # x", "XClient: on # x",
        "RuleInterface: eth1   # clients come in",
        "RuleInterface: eth1,#eth2", "RuleSource: 192.0.2.0/24 # lan", "RulePort: 25 # x", "Instance: a # x",
    ],
)  # fmt: skip
def test_a_comment_after_a_value_is_refused_with_the_fix(line: str) -> None:
    """1.10 refuses it, too (measured); as a list of interfaces it would have been a list of words."""
    [problem] = problems(OUT + line.encode() + b"\n")
    assert problem[0] == 2
    assert problem[1].startswith(
        f"{line.partition(':')[0]}: write the comment in a line of its own, before this one: #"
    )


@pytest.mark.parametrize("line", ["TempDirectory: /tmp # x", "PidFile: /run/x #x", "User: nobody # x"])
def test_a_hash_in_a_path_is_part_of_it_with_a_warning(line: str) -> None:
    """As in 1.10, which then finds no such folder or user."""
    [(number, text)] = warnings(OUT + line.encode())
    assert (number, "is part of the value, and no comment" in text) == (2, True)
    assert (
        warnings(OUT + b"FilterCommand: cat # x\nHeader: X: a # b\nFilterReject: 550 no # 1\nPidFile: /run/a#b") == []
    )


def test_the_last_of_two_counts_and_that_is_said() -> None:
    data = OUT + b"TimeOut: 5\nTimeOut: 6\n"
    assert read(data).time_out == 6
    assert warnings(data) == [(3, "TimeOut: given twice; the value of line 2 is ignored")]


def test_a_symbol_that_means_nothing_is_reported() -> None:
    data = OUT + b"Header: X-A: %i %q %% %x \\%z %d %q 100%\n"
    assert warnings(data) == [
        (2, "Header: %q is no symbol and is left out; write %% for a percent sign"),
        (2, "Header: %x is no symbol and is left out; write %% for a percent sign"),
    ]


def test_rule_lists_add_up() -> None:
    data = OUT + b"RuleInterface: a, b\nRuleInterface: b c\nRulePort: 25\nRulePort: 587\n"
    assert read(data).rule_interface == ("a", "b", "c")
    assert read(data).rule_port == (25, 587)
    assert warnings(data) == []


def test_every_problem_at_once_with_its_line() -> None:
    found = problems(b"Foo: 1\nOutAddress: 0\n# fine\nTimeOut: x\nTimeOut\nXClient: maybe\nTimeOut: 9\n")
    assert [line for line, _ in found] == [1, 2, 4, 5, 6]
    assert [text.partition(":")[0] for _, text in found] == ["Foo", "OutAddress", "TimeOut", "TimeOut", "XClient"]


def test_a_spelling_mistake_is_guessed() -> None:
    assert problems(OUT + b"MaxConections: 5\n") == [
        (2, "MaxConections: no such directive; did you mean MaxConnections?")
    ]


def test_bytes_that_are_no_utf8_stay_in_commands_and_comments() -> None:
    data = OUT + b"# Gr\xfc\xdfe\nFilterCommand: echo \xfc\n"
    command = read(data).filter_command
    assert command is not None
    assert command.encode("utf-8", "surrogateescape") == b"echo \xfc"


@pytest.mark.parametrize(
    ("data", "line", "why"),
    [
        (OUT + b"User: a\0b\n", 2, "NUL"),
        ("OutAddress: 25\n".encode("utf-16"), 1, "UTF-16"),
        (OUT + b"User: \xfc\x1b[31m\n", 2, r"control character:  \udcfc\x1b[31m"),
        (OUT + b"User: a\rTimeOut: 5\n", 2, "control character"),
        (OUT + b"#" * (1 << 20), 0, "larger than"),
    ],
)
def test_what_is_no_text_is_said(data: bytes, line: int, why: str) -> None:
    [(where, text)] = problems(data)
    assert where == line
    assert why in text


def test_a_byte_order_mark_is_no_part_of_the_name() -> None:
    assert read(b"\xef\xbb\xbf" + OUT).out_address == InetAddress("192.0.2.1", 25)


def test_no_address_to_send_to() -> None:
    [(line, text)] = problems(b"")
    assert line == 0
    assert text.startswith("OutAddress")
    assert read(b"TransparentProxy: on\n").transparent


def test_an_address_that_was_wrong_is_not_missing_too() -> None:
    assert [line for line, _ in problems(b"OutAddress: 0\n")] == [1]
    assert [line for line, _ in problems(b"TransparentProxy: maybe\n")] == [1]


def test_an_address_that_is_ignored_is_warned_of() -> None:
    assert warnings(OUT + b"TransparentProxy: full\n") == [(1, "OutAddress: ignored, because TransparentProxy is set")]


def test_a_reply_that_is_not_ascii_is_warned_of() -> None:
    data = OUT + "FilterReject: 550 keine Mail für Sie\n".encode()
    assert read(data).filter_reject == "550 keine Mail für Sie"
    assert [line for line, _ in warnings(data)] == [2]
    assert warnings(OUT + b"KeepAlives: 1000\n") == []


@pytest.mark.parametrize("command", [b"", b"FilterCommand: cat -v\n", b"FilterCommand: 0\n"])
def test_a_scanner_needs_an_address(command: bytes) -> None:
    [(_, text)] = problems(OUT + b"FilterType: smtp\n" + command)
    assert "FilterCommand" in text


@pytest.mark.parametrize(
    ("written", "address"),
    [
        (b"127.0.0.1:783", InetAddress("127.0.0.1", 783)),
        (b"783", InetAddress("127.0.0.1", 783)),
        (b"scanner.example:783", InetAddress("scanner.example", 783)),
        (b"192.0.2.1", InetAddress("192.0.2.1", 25)),
        (b"[::1]:783", InetAddress("::1", 783)),
        (b"/run/scanner", UnixAddress("/run/scanner")),
    ],
)
def test_a_scanner_with_an_address(written: bytes, address: Address) -> None:
    """A port alone is one of this machine's."""
    assert read(OUT + b"FilterType: smtp\nFilterCommand: " + written + b"\n").filter_address == address


def test_a_message_cannot_last_longer_than_its_session() -> None:
    assert problems(OUT + b"MessageTimeOut: 20\nSessionTimeOut: 10\n")[0][0] == 3


def settings_or_problems(data: bytes) -> Settings | list[str]:
    """What `parse_config` may do. Anything else that it raises fails the test."""
    try:
        return parse_config(data, "x.conf").settings
    except ConfigError as error:
        return error.lines()


@given(st.binary())
def test_any_bytes_are_settings_or_problems(data: bytes) -> None:
    result = settings_or_problems(data)
    assert result
    assert isinstance(result, Settings) or all(line.isprintable() for line in result)


LINES = st.builds(
    lambda name, text: f"{name}:{text}".encode("utf-8", "surrogateescape"),
    st.sampled_from([row.name for row in DIRECTIVES]),
    st.one_of(st.text(), st.sampled_from(["", "on", "1", "25", "a:1", "/x", "[::1]:25", "smtp", "full", "0"])).filter(
        lambda text: text.isprintable()
    ),
)


@settings(max_examples=300)
@given(st.lists(LINES, max_size=8))
def test_any_values_are_settings_or_problems(lines: list[bytes]) -> None:
    result = settings_or_problems(b"\n".join(lines))
    assert result
    for row in DIRECTIVES if isinstance(result, Settings) else ():  # and what was read can be written
        value = getattr(result, row.field)
        if value not in {None, (), False, ""}:
            assert row.kind.parse(row.kind.show(value)) == value


def test_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "my-gateway.conf"
    path.write_bytes(OUT)
    assert read_config(str(path)).instance == "my-gateway"
    path.write_bytes(OUT + b"Instance: other\n")
    assert load_config(str(path)).settings.instance == "other"


@pytest.mark.parametrize(("name", "code"), [("missing.conf", 2), (".", 1), ("a\0b", 1)])
def test_a_file_that_cannot_be_read(tmp_path: Path, name: str, code: int) -> None:
    with pytest.raises(ConfigError) as caught:
        read_config(str(tmp_path / name))
    assert caught.value.exit_code == code
    assert len(caught.value.lines()) == 1


def test_an_endless_file_ends() -> None:
    with pytest.raises(ConfigError, match="larger than"):
        read_config("/dev/zero")


@pytest.mark.parametrize("path", ["/etc/a.conf", "/etc/a b.conf", "/etc/äö.conf", "/etc/" + "long-name" * 9, "/", "-"])
def test_every_file_gives_a_name(path: str) -> None:
    assert parse_instance(instance_name(path))


def test_files_of_two_names_have_two_names() -> None:
    assert instance_name("/etc/gateway-of-the-north.conf") != instance_name("/etc/gateway-of-the-south.conf")
    assert instance_name("/etc/a b.conf") != instance_name("/etc/a-b.conf")
    assert instance_name("/etc/gateway.conf") == "gateway"


def test_printable_escapes_what_moves_the_terminal() -> None:
    assert printable("a\x1b[31m\r\n\u202eb\udcfc") == "a\\x1b[31m\\r\\n\\u202eb\\udcfc"


def test_an_open_loopback_is_warned_of() -> None:
    (warning,) = warnings(b"OutAddress: 10026\n")
    assert warning[0] == 1
    assert "Clients" in warning[1]
    assert warnings(b"OutAddress: 10026\nClients: 192.0.2.0/24\n") == []
    for local in (b"127.0.0.1:10025, 127.8.0.1", b"[::1]", b"localhost:25", b"/run/x"):
        assert warnings(b"OutAddress: 10026\nListen: " + local + b"\n") == []
    for reachable in (b"0.0.0.0:10025", b"[::]:25", b"127.0.0.1, 192.0.2.1", b"gateway.example"):
        assert len(warnings(b"OutAddress: 10026\nListen: " + reachable + b"\n")) == 1
    assert warnings(OUT) == []


def test_filter_mode_monitor_is_warned_of() -> None:
    monitor = OUT + b"FilterMode: monitor\n"
    assert warnings(monitor + b"FilterCommand: /filter\n") == [
        (2, "FilterMode: monitor: every message passes, whatever the filter says")
    ]
    assert warnings(monitor) == [(2, "FilterMode: monitor has no effect without a filter (Filter or FilterCommand)")]
    assert warnings(OUT + b"FilterMode: enforce\nFilterCommand: /filter\n") == []
    with pytest.raises(ConfigError, match=":2: FilterMode: monitor cannot pass what FilterType reject refuses"):
        parse_config(monitor + b"FilterCommand: x\nFilterType: reject\n", "/etc/gateway.conf")


def test_what_does_not_print_is_escaped_without_files_of_the_interpreter() -> None:
    """A daemon that has become another user may not be able to read them; then a tab was an error."""
    code = (
        "import sys; from proxsmtp_tp.config.reader import printable\n"
        "sys.path[:] = []; sys.path_importer_cache.clear(); sys.meta_path[:] = []\n"
        r"assert printable('a\tb\x1b\u2028\udcff') == r'a\tb\x1b\u2028\udcff'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
