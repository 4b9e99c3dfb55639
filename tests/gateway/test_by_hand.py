"""Runs the commands that docs/gateway.md and the heads of the nft files give."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.gateway.plan import Method, Mode
from tests.gateway.network import SERVER, greeting, run
from tests.gateway.rules_host import METHODS, MODES

if TYPE_CHECKING:
    from tests.gateway.rules_host import RulesHost

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("method", METHODS)
def test_undoing_by_hand(host: RulesHost, method: Method) -> None:
    (block,) = re.findall(r"```sh\n(nft delete.*?)```", (ROOT / "docs/gateway.md").read_text(), re.DOTALL)
    before = host.snapshot()
    host.install(instance="gate", method=method, mode=Mode.TPROXY, local=True, daemon_uid=65534)
    run(host.net.gateway, "sh", "-c", block.replace("/run/proxsmtp-tp-rules", str(host.state)))
    assert host.snapshot() == before
    assert not list(host.state.glob("*.json"))


@pytest.mark.parametrize("mode", MODES)
def test_loading_by_hand(host: RulesHost, mode: Mode) -> None:
    text = (ROOT / f"nftables/{mode.value}.nft").read_text()
    run(host.net.gateway, "nft", "-f", "-", stdin=text.replace('"eth0"', '"lan0"'))
    for command in re.findall(r"^#\t(ip .*)$", text, re.MULTILINE):
        for family in ("-4", "-6"):
            run(host.net.gateway, *command.replace("ip ", f"ip {family} ", 1).split())
    host.server()
    daemon = host.daemon(mode)
    for version in (4, 6):
        assert greeting(host.net.client, SERVER[version]) == f"daemon for {SERVER[version]}"
    daemon.close()
    assert greeting(host.net.client, SERVER[4]) == "ConnectionRefusedError"


@pytest.mark.parametrize("mode", MODES)
def test_no_name_of_a_file_is_needed(host: RulesHost, mode: Mode) -> None:
    """A minimal Debian has no /etc/protocols and no /etc/services (package netbase)."""
    text = (ROOT / f"nftables/{mode.value}.nft").read_text()
    hidden = "".join(f"mount --bind /dev/null /etc/{name}; " for name in ("protocols", "services"))
    run(host.net.gateway, "unshare", "-m", "sh", "-ec", f"{hidden} nft -c -f -", stdin=text)
