"""The command check-filters, before a scanner that greets, one that is not there, and a command."""

from __future__ import annotations

import json
import socket
import threading
from typing import TYPE_CHECKING

from proxsmtp_tp.cli.main import main

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def config(tmp_path: Path, *lines: str) -> str:
    path = tmp_path / "x.conf"
    path.write_text("OutAddress: 192.0.2.1\n" + "".join(f"Filter: {line}\n" for line in lines))
    return str(path)


def test_each_filter_gives_its_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listener = socket.create_server(("127.0.0.1", 0))

    def greet() -> None:
        for greeting in (b"220 scanner ready\r\n", b"554 go away\r\n"):
            peer, _ = listener.accept()
            peer.sendall(greeting)
            peer.close()

    threading.Thread(target=greet, daemon=True).start()
    port = listener.getsockname()[1]
    file = config(tmp_path, f"s smtp 127.0.0.1:{port}", "p pipe cat")
    assert main(["check-filters", "-f", file]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"s (smtp): 127.0.0.1:{port}: 220 scanner ready",
        "p (pipe): a command for each message: try-filter runs it",
    ]
    file = config(tmp_path, f"s smtp {tmp_path}/none,127.0.0.1:{port}", f"c clamd {tmp_path}/none")
    assert main(["check-filters", "-f", file, "--json"]) == 1
    first, second = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert first["problem"] == f"127.0.0.1:{port} greets with b'554 go away\\r\\n'"
    assert "No such file" in second["problem"]
    listener.close()


def test_without_a_chain(tmp_path: Path) -> None:
    assert main(["check-filters", "-f", config(tmp_path)]) == 2
