"""LogAddresses: no address, subject, Message-ID or password of a session is in the log, whatever its form and level."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.config.settings import LogAddresses, LogFormat, Settings
from proxsmtp_tp.service import logging as logs
from proxsmtp_tp.telemetry import addresses
from tests.unit.net.dialogue import meet, relayed
from tests.unit.net.proxy_harness import Mx

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.unit.net.proxy_harness import StartProxy

CANARIES = ("anncanary", "bobcanary", "dancanary", "evecanary", "odd canary", "subjectcanary", "idcanary", "pwcanary")


def in_base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


USER, PASSWORD = "loginuser@c.example", in_base64("\0loginuser@c.example\0pwcanary")
LOGINS = (
    (f"PLAIN {PASSWORD}",),
    ("PLAIN", PASSWORD),
    ("LOGIN", in_base64(USER), in_base64("pwcanary")),
    (f"LOGIN {in_base64(USER)}", in_base64("pwcanary")),
    ("CRAM-MD5", in_base64(f"{USER} {'0f' * 16}")),
)
"""Mechanism, perhaps with an initial response, and what the client says then: a user, a password, a digest."""
SECRETS = {PASSWORD, USER, *(word for login in LOGINS for text in login for word in text.split()[-1:] if len(word) > 9)}
"""None of these is shown, whatever LogAddresses says: a user name is one of the two parts of a login."""


@pytest.fixture(autouse=True)
def _full_again() -> Iterator[None]:
    yield
    addresses.use(addresses.Addresses())


async def scenario(start_proxy: StartProxy, settings: Settings, events: str) -> None:
    """A login, a refused recipient, an odd line, a judged message, and one that the filter refuses with the address."""
    command = 'case "$SENDER" in eve*) echo "550 $SENDER may not write" >&2; exit 1;; esac; cat'
    form, shown = settings.log_format, settings.log_addresses
    async with (
        Mx() as mx,
        start_proxy(mx, filter_command=command, log_format=form, log_addresses=shown, event_log=events) as harness,
    ):
        client, server = await meet(harness, mx, "AUTH PLAIN LOGIN CRAM-MD5")
        for mechanism, *answers in LOGINS:
            await relayed(client, server, f"AUTH {mechanism}", "334 Zm9y" if answers else "235 2.7.0 ok")
            for answer in answers:
                await relayed(client, server, answer, "535 5.7.8 no" if answer is answers[-1] else "334 Zm9y")
        await relayed(client, server, f"AUTH PLAIN {PASSWORD}", "235 2.7.0 ok")
        await relayed(client, server, "VRFY dancanary", "252 2.0.0 dancanary")
        await relayed(client, server, "MAIL FROM:<anncanary@c.example>", "250 2.1.0 anncanary is welcome")
        await relayed(
            client, server, "RCPT TO:<bobcanary@mx.example>", "550 5.1.1 bobcanary... unknown <bobcanary@mx.example>"
        )
        await client.ask("RCPT TO:<@x:odd canary @y@z>")
        await relayed(client, server, "RCPT TO:<DanCanary@mx.example>", "250 2.1.5 dancanary@mx.example ok")
        await client.ask("DATA")
        await client.say("Message-ID: <idcanary@c.example>\nSubject: subjectcanary\n\nhi\n.")
        assert await server.line() == b"DATA"
        await server.say("354 go")
        await server.text()
        await server.say("250 2.0.0 dancanary has it")
        assert (await client.reply()).startswith(b"250")
        await relayed(client, server, "MAIL FROM:<evecanary@c.example>", "250 2.1.0 ok")
        await relayed(client, server, "RCPT TO:<dancanary@mx.example>", "250 2.1.5 ok")
        await client.ask("DATA")
        assert (await client.ask("Subject: subjectcanary\n\nhi\n.")).startswith(b"550 evecanary@c.example may")
        assert await server.line() == b"RSET"
        await server.say("250 2.0.0 ok")
        client.close()
        await server.rest()
        await harness.empty()


@pytest.mark.parametrize("form", list(LogFormat))
@pytest.mark.parametrize("shown", list(LogAddresses))
async def test_canaries(
    start_proxy: StartProxy, tmp_path: Path, caplog: pytest.LogCaptureFixture, form: LogFormat, shown: LogAddresses
) -> None:
    settings = Settings(log_format=form, log_addresses=shown)
    caplog.set_level("DEBUG")
    logs.use(settings, tmp_path / "pseudonym.key")
    formatter = {LogFormat.JSON: logs.JsonLine}.get(form, logs.OneLine)("%(message)s")
    await scenario(start_proxy, settings, str(tmp_path / "events"))
    lines = [formatter.format(record) for record in caplog.records]
    found = (tmp_path / "events").read_text()
    assert found.count("\n") == 2
    whole = "\n".join([*lines, found])
    assert not {secret for secret in SECRETS if secret in whole}
    text = whole.lower()
    seen = {canary for canary in CANARIES if canary in text}
    if shown is LogAddresses.FULL:
        assert seen == set(CANARIES) - {"subjectcanary", "pwcanary"}
        return
    assert seen == set(), text
    assert ("mx.example" in text) is (shown is not LogAddresses.NONE)
