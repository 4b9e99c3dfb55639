"""How much memory an idle leg takes: in processes of their own, so that nothing else counts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.net.tls_legs import self_signed

KIB_MAX = 60
PAIRS = 400

SCRIPT = """
import sys
from proxsmtp_tp.certificates.material import Material
from proxsmtp_tp.net.tls_contexts import ClientContexts, server_context
from proxsmtp_tp.net.tls_stream import End, TlsStream, TlsStreamError
from proxsmtp_tp.tls.facts import Side
certificate = Material(*(part.encode() for part in sys.stdin.read().split("|")), ends=0.0)
contexts, towards_servers = ClientContexts(), server_context()
version, pairs = int(sys.argv[1]), int(sys.argv[2])
if version == 0x303:
    towards_servers.maximum_version = towards_servers.minimum_version

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4

def pair():
    client = TlsStream(contexts.get(certificate, {version}), Side.CLIENT)
    server = TlsStream(towards_servers, Side.SERVER, "mx.example")
    for _ in range(3):
        client.receive(server.to_send())
        server.receive(client.to_send())
    for writer, reader in ((server, client), (client, server)):
        writer.write(b"x" * 50000)
        left = reader.receive(writer.to_send())
        assert len(left) == 50000
    return client, server

kept = [pair() for _ in range(50)]
before = resident()
kept = [*kept, *(pair() for _ in range(pairs))]
print((resident() - before) / pairs / 2)
client, server = kept[0]
server.write(b"half a message")
client.receive(server.to_send())
client.eof()
assert client.end is End.TRUNCATED
"""


@pytest.mark.parametrize("version", [0x0303, 0x0304])
@pytest.mark.parametrize("python", [sys.executable, "/usr/bin/python3"])
def test_an_idle_leg_takes_little_memory(version: int, python: str) -> None:
    """With the Python of the host, too: 3.11.2 of Debian 12 calls a FIN without close_notify a clean end."""
    certificate = self_signed()
    done = subprocess.run(
        [python, "-c", SCRIPT, str(version), str(PAIRS)],
        input=certificate.chain + b"|" + certificate.key,
        stdout=subprocess.PIPE,
        check=True,
        cwd=Path(__file__).parents[3],
    )
    assert 5 < float(done.stdout) < KIB_MAX
