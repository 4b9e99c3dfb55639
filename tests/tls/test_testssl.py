"""testssl.sh finds nothing in what a client of `Tls: terminate` sees, by STARTTLS and by TLS from the first octet.

The certificate is one that the daemon has made, for a verified server, and testssl.sh is told to trust its CA. Any
finding of LOW or more fails, except for those of INHERENT. openssl s_server beside it shows that the checks find
something.
"""

from __future__ import annotations

import json
import socket
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.tls.daemon import NAME, Daemon, certificate_files, daemon, free_port, mail_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CHECKS = ("--protocols", "--server-preference", "--fs", "--server-defaults", "--vulnerable")
INHERENT = {
    "engine_problem": "about the openssl that testssl.sh runs, not about the server: it has no GOST",
    "cert_revocation": "the CA publishes no CRL and has no OCSP: its certificates are valid for 28 days",
    "cert_expirationStatus": "28 days, where testssl.sh wants 30 (certificates.leaf.AHEAD)",
    "cert_notAfter": "the same",
}
"""What a certificate of the daemon's own CA cannot be without, and why."""
HARMLESS = {"OK", "INFO", "DEBUG"}


def findings(folder: Path, port: int, *options: str) -> dict[str, str]:
    """What testssl.sh complains of, by its names: LOW and more, and what it could not test."""
    file = folder / "testssl.json"
    command = ["testssl", "--quiet", "--warnings", "off", "--color", "0", "--nodns", "none", "--jsonfile", str(file)]
    done = subprocess.run(
        [*command, *options, "--ip", "127.0.0.1", f"{NAME}:{port}"],
        capture_output=True, text=True, check=False, timeout=400,
    )  # fmt: skip
    said = json.loads(file.read_text())
    assert {"TLS1", "TLS1_1", "TLS1_2", "TLS1_3"} <= {each["id"] for each in said}, (done.stdout, done.stderr)
    assert "scanProblem" not in {each["id"] for each in said}, done.stdout
    return {each["id"]: f"{each['severity']}: {each['finding']}" for each in said if each["severity"] not in HARMLESS}


@contextmanager
def terminating(folder: Path, *, wrapped: bool) -> Iterator[Daemon]:
    """The server is verified, so the certificate is of the CA that clients trust."""
    chain, _ = certificate_files(folder)
    with mail_server(folder, wrapped=wrapped) as server:
        lines = [
            "Tls: terminate",
            f"UpstreamTls: secure match={NAME}",
            f"UpstreamCaFile: {chain}",
            "FilterCommand: cat",
        ]
        if wrapped:
            lines.append(f"TlsWrapped: {server.port}")
        with daemon(folder, server.port, "\n".join(lines)) as running:
            yield running


@pytest.mark.timeout(600)
@pytest.mark.parametrize("wrapped", [False, True])
def test_no_findings(wrapped: bool, tmp_path: Path) -> None:
    with terminating(tmp_path, wrapped=wrapped) as running:
        ca = tmp_path / "state" / "tls" / "ca.pem"
        start = [] if wrapped else ["--starttls", "smtp"]
        found = findings(tmp_path, running.port, *CHECKS, *start, "--add-ca", str(ca))
    assert set(found) == set(INHERENT), found


def test_the_checks_find_what_openssl_allows(tmp_path: Path) -> None:
    """A server with the old versions that we do not offer."""
    chain, key = certificate_files(tmp_path)
    port = free_port()
    server = subprocess.Popen(
        ["openssl", "s_server", "-www", "-accept", f"127.0.0.1:{port}", "-cert", chain, "-key", key,
         "-cipher", "ALL:@SECLEVEL=0"],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        _wait_for(port)
        found = findings(tmp_path, port, "--protocols")
    finally:
        server.kill()
        server.wait()
    assert {name for name in found if name.startswith("TLS")} == {"TLS1", "TLS1_1"}, found


def _wait_for(port: int) -> None:
    end = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            assert time.monotonic() < end
            time.sleep(0.05)
        else:
            return
