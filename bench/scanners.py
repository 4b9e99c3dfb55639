"""The daemons that judge mail in the bench: a milter that accepts, clamd, rspamd, with few lines of configuration."""

from __future__ import annotations

import contextlib
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tests.filters.daemons import daemon

if TYPE_CHECKING:
    from collections.abc import Iterator

BENCH = Path(__file__).parent

CLAMD = """\
Foreground yes
LocalSocket {0}/clamd
LocalSocketMode 666
DatabaseDirectory {0}/db
TemporaryDirectory {0}
"""
RULES = """\
rspamd_config:register_symbol({name = "TRIVIAL", type = "normal", score = 0.1, callback = function(task)
  return task:get_header("Subject") ~= nil
end})
"""
RSPAMD = """\
lua = "{0}/rules.lua";
options {{
  filters = ""; dns {{ nameserver = ["127.0.0.1:1"]; }} tempdir = "{0}"; control_socket = "{0}/control mode=0600";
  hs_cache_dir = "{0}"; cache_file = "{0}/cache"; url_tld = "{0}/tld"; history_file = "{0}/history"; local_addrs = [];
  disable_hyperscan = true;
}}
lang_detection {{ languages = "{0}/languages"; languages_enable = ["en"]; }}
logging {{ type = "console"; level = "error"; }}
actions {{ reject = 15; }}
worker "normal" {{ bind_socket = "{0}/rspamd-http mode=0666"; count = 1; }}
worker "rspamd_proxy" {{
  bind_socket = "{0}/rspamd-milter mode=0666"; count = 1; milter = yes;
  upstream "local" {{ self_scan = yes; default = yes; }}
}}
"""


@dataclass(frozen=True, slots=True)
class Scanner:
    """A daemon that judges: its process, and the addresses of its sockets."""

    pid: int
    sockets: tuple[Path, ...]


@contextlib.contextmanager
def accepting_milter(folder: Path, language: Literal["C", "Python"]) -> Iterator[Scanner]:
    """A milter with the real libmilter, which accepts."""
    path = folder / f"milter-{language}"
    command: list[str | Path] = ["/usr/bin/python3", BENCH / "accepting_milter.py"]
    if language == "C":
        command = [folder / "accepting_milter"]
        source = BENCH / "accepting_milter.c"
        subprocess.run(["cc", "-O2", "-pthread", "-o", command[0], source, "-lmilter"], check=True)
    with daemon([*command, path], path) as process:
        path.chmod(0o777)
        yield Scanner(process.pid, (path,))


@contextlib.contextmanager
def clamd(folder: Path) -> Iterator[Scanner]:
    """clamd, which knows one virus."""
    (folder / "db").mkdir()
    (folder / "db/test.ndb").write_text(f"Test-Signature:0:*:{b'no message has this text'.hex()}\n")
    (folder / "clamd.conf").write_text(CLAMD.format(folder))
    with daemon(["clamd", "--config-file", folder / "clamd.conf"], folder / "clamd") as process:
        yield Scanner(process.pid, (folder / "clamd",))


@contextlib.contextmanager
def rspamd(folder: Path) -> Iterator[Scanner]:
    """rspamd with one rule and no module. Its sockets: HTTP, milter."""
    (folder / "rules.lua").write_text(RULES)
    (folder / "tld").write_text("org\nexample\n")
    (folder / "languages").mkdir()
    for name in ("en.json", "stop_words"):
        (folder / "languages" / name).symlink_to(f"/usr/share/rspamd/languages/{name}")
    (folder / "rspamd.conf").write_text(RSPAMD.format(folder))
    sockets = (folder / "rspamd-http", folder / "rspamd-milter")
    with daemon(["rspamd", "-f", "-i", "-c", folder / "rspamd.conf"], *sockets) as process:
        yield Scanner(process.pid, sockets)
