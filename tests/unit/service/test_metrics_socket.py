"""The metrics socket, and the reader that serves it over HTTP."""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.cli.daemon import NoAnswerError
from proxsmtp_tp.cli.metrics import serve
from proxsmtp_tp.service.metrics_socket import MetricsSocket, read_metrics

if TYPE_CHECKING:
    from tests.unit.service.conftest import Daemon


def test_the_daemon_gives_its_numbers_to_its_group(daemon: Daemon) -> None:
    """Counters of workers that were replaced are kept over a reload."""
    daemon.start()
    path = daemon.folder / "d.metrics"
    assert path.stat().st_mode & 0o777 == 0o660
    text = read_metrics(path)
    assert "proxsmtp_connections_limit 64" in text
    assert "proxsmtp_worker_restarts_total 0" in text
    assert "metrics" not in daemon.connect().ask("FILES")
    daemon.end()
    with pytest.raises(OSError, match=r"refused|No such file"):
        read_metrics(path)


def test_without_a_folder_there_is_none() -> None:
    nothing = MetricsSocket(None)
    nothing.answer(str)
    assert nothing.fileno() is None
    nothing.close(remove=True)


def test_it_is_served_over_http() -> None:
    answers = [lambda: "proxsmtp_x 1\n"]

    def read() -> str:
        if not answers:
            raise NoAnswerError("gone")
        return answers.pop()()

    with serve("127.0.0.1", 0, read) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_address[1]}"
            with urllib.request.urlopen(f"{url}/metrics", timeout=20) as answer:
                assert answer.read() == b"proxsmtp_x 1\n"
                assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
            for path, code in (("/metrics", 503), ("/", 404)):
                with pytest.raises(urllib.error.HTTPError) as error:
                    urllib.request.urlopen(url + path, timeout=20)
                assert error.value.code == code
                error.value.close()
        finally:
            server.shutdown()
            thread.join()
