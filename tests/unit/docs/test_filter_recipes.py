"""The recipes of docs/filters.md: our reader accepts their chains, their test messages are what scanners know, and a
test with the real scanner reads each of their fragments.
"""

from __future__ import annotations

import re
import subprocess
from email import message_from_bytes
from pathlib import Path

import pytest

from proxsmtp_tp.config.advice import advice
from proxsmtp_tp.config.reader import parse_config
from tests.filters.recipes import FRAGMENTS, PAGE

TESTS = Path(__file__).parents[2] / "filters"
FENCES = re.findall(r"^( *)```([^\n]*)\n(.*?)^\1```$", PAGE, re.MULTILINE | re.DOTALL)
CHAINS = [lines for _, _, text in FENCES if (lines := re.findall(r"^[ #]*(Filter: .*)$", text, re.MULTILINE))]
RECIPES = re.findall(r"^### (\S+)\n(.*?)(?=^###? )", PAGE, re.MULTILINE | re.DOTALL)
EICAR = b"X5O!P%@AP[4\\PZX54(P^)7CC)7}$" + b"EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"
GTUBE = b"XJS*C4JDBQADN1.NSBN3*2IDNEN*" + b"GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"


@pytest.mark.parametrize("lines", CHAINS, ids=lambda lines: lines[0])
def test_each_chain_is_read(lines: list[str]) -> None:
    text = "\n".join(["Listen: 127.0.0.1:10025", "OutAddress: 192.0.2.1", *lines, ""])
    configuration = parse_config(text.encode(), "/etc/proxsmtp-tp/gateway.conf")
    assert len(configuration.settings.filter) == len(lines)
    assert configuration.warnings == ()
    assert advice(configuration.settings) == []


def test_they_are_found() -> None:
    assert sum(map(len, CHAINS)) == len(re.findall(r"^[ #]*Filter: ", PAGE, re.MULTILINE))
    assert len(CHAINS) >= 10


def test_each_scanner_has_a_whole_recipe() -> None:
    names = ["rspamd", "ClamAV", "SpamAssassin", "opendkim", "opendmarc", "amavis", "MIMEDefang"]
    assert [name for name, _ in RECIPES] == names
    for name, text in RECIPES:
        steps = (
            "# apt-get install ",
            "\nFilter: ",
            "# systemctl restart ",
            " check-filters\n",
            "# proxsmtp-tp try-filter ",
        )
        assert [step for step in steps if step not in text] == [], name


def test_a_recipe_with_a_socket_for_a_group_lets_the_daemon_join_it() -> None:
    joined = {name: found[1] for name, text in RECIPES if (found := re.search(r"# adduser proxsmtp-tp (\S+)", text))}
    assert joined == {"opendkim": "opendkim", "opendmarc": "opendmarc", "amavis": "amavis", "MIMEDefang": "defang"}
    for name, text in RECIPES:
        assert (name in joined) == ("systemctl restart" in text and " proxsmtp-tp@gateway\n" in text)


@pytest.mark.parametrize("path", FRAGMENTS)
def test_each_fragment_is_given_to_the_scanner_in_a_test(path: str) -> None:
    assert any(f'fragment("{path}")' in file.read_text("utf-8") for file in TESTS.glob("test_*.py"))


def test_the_messages(tmp_path: Path) -> None:
    (script,) = [text for _, name, text in FENCES if name == "sh" and "eicar.eml" in text]
    subprocess.run(["/bin/sh", "-euc", script], cwd=tmp_path, check=True)
    eicar, gtube, program = [
        message_from_bytes((tmp_path / name).read_bytes()) for name in ("eicar.eml", "gtube.eml", "exe.eml")
    ]
    assert eicar.get_payload(decode=True) == EICAR
    assert gtube.get_payload(decode=True) == GTUBE + b"\n"
    assert (program.get_filename(), program.get_payload(decode=True)) == ("a.exe", b"MZ\n")
