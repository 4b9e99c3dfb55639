"""proxsmtp-tp tls-policy and the table of check-config: what sessions do, said before they do it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from proxsmtp_tp.cli import main as cli

if TYPE_CHECKING:
    from pathlib import Path

CLIENT, SERVER = "192.0.2.7", "198.51.100.25"
LINES = """\
Tls: pass server=198.51.100.0/24 name=*.bank.example
Tls: terminate server=198.51.100.0/24
Tls: refuse client=192.0.2.66
Tls: strip
UpstreamTls: dane server=198.51.100.0/24
UpstreamTls: secure port=587 match=mx.example
TlsCertificate: /etc/mx.pem /etc/mx.key server=198.51.100.25
"""


@pytest.fixture(name="say")
def _say(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    file = tmp_path / "gateway.conf"

    def say(text: str, *arguments: str) -> str:
        file.write_text(f"TransparentProxy: client\n{text}")
        command = "tls-policy" if len(arguments) > 1 else "check-config"
        assert cli.main([command, "-f", str(file), *arguments]) == 0
        return capsys.readouterr().out.strip()

    return say


def test_what_is_possible_before_the_hello(say: Any) -> None:
    passed = "nothing is judged, the client has TLS with the server"
    assert say(LINES, CLIENT, SERVER).splitlines() == [
        "connection   192.0.2.7 to 198.51.100.25, port 25, TLS by STARTTLS",
        f"TLS          pass (Tls: pass server=198.51.100.0/24 name=*.bank.example): {passed}",
        "TLS          terminate (Tls: terminate server=198.51.100.0/24): TLS on both legs, messages are judged",
        "certificate  /etc/mx.pem",
        "             if the client rejects it: it cannot send (TlsRejected: fail)",
        "to server    UpstreamTls: dane server=198.51.100.0/24",
        "             for a client with TLS: as its TLSA records say; without them: TLS with any certificate (encrypt)",
        "             for a client in clear: in clear, too (may)",
    ]


@pytest.mark.parametrize(
    ("arguments", "action", "rule"),
    [
        ((CLIENT, SERVER, "--name", "MX.bank.example."), "pass", "pass server=198.51.100.0/24 name=*.bank.example"),
        ((CLIENT, SERVER, "--name", "none"), "terminate", "terminate server=198.51.100.0/24"),
        (("192.0.2.66", "203.0.113.1", "--name", "none"), "refuse", "refuse client=192.0.2.66"),
        (("192.0.2.66", "203.0.113.1"), "refuse", "refuse client=192.0.2.66"),
        (("2001:db8::1", "2001:db8::2"), "strip", "strip"),
        (("2001:db8::1", "[2001:db8::2]:25", "--name", "mx.example"), "strip", "strip"),
        (("2001:db8::1", "[2001:db8::2]:587"), "refuse", "strip"),
    ],
)
def test_one_decision(say: Any, arguments: tuple[str, ...], action: str, rule: str) -> None:
    answer = json.loads(say(LINES, *arguments, "--json"))
    assert [(each["action"], each["rule"]) for each in answer["decisions"]] == [(action, rule)]
    assert f"TLS          {action} (Tls: {rule}): " in say(LINES, *arguments)


def test_what_the_server_must_have(say: Any) -> None:
    def upstream(*arguments: str) -> Any:
        return json.loads(say(LINES, *arguments, "--json"))["upstream"]

    secure = "TLS with a trusted certificate for mx.example (secure)"
    assert upstream(CLIENT, "203.0.113.1:587") == {
        "rule": "secure port=587 match=mx.example",
        "tls": secure,
        "clear": secure,
    }
    assert upstream(CLIENT, "203.0.113.1") == {
        "rule": "",
        "tls": "TLS with any certificate (encrypt)",
        "clear": "in clear, too (may)",
    }
    assert "to server    no UpstreamTls line\n" in say(LINES, CLIENT, "203.0.113.1")


@pytest.mark.parametrize(
    ("line", "clear", "tls"),
    [
        ("encrypt", "TLS with any certificate (encrypt)", "TLS with any certificate (encrypt)"),
        (
            "verify",
            "451: no name is known to verify (verify without match= and sni=)",
            "TLS with a trusted certificate for the server name that the client gives (verify)",
        ),
        (
            "dane sni=a.example",
            "as its TLSA records say; without them: in clear, too (may)",
            "as its TLSA records say; without them: TLS with any certificate (encrypt)",
        ),
        ("verify match=a.example", *["TLS with a trusted certificate for a.example (verify)"] * 2),
    ],
)
def test_levels(say: Any, line: str, clear: str, tls: str) -> None:
    found = json.loads(say(f"Tls: terminate\nUpstreamTls: {line}\n", CLIENT, SERVER, "--json"))["upstream"]
    assert (found["clear"], found["tls"]) == (clear, tls)


def test_certificates(say: Any) -> None:
    def certificate(text: str, server: str) -> Any:
        return json.loads(say(text, CLIENT, server, "--json"))["certificate"]

    assert certificate(LINES, SERVER) == "/etc/mx.pem"
    made = "made for each server, signed by the CA in"
    assert certificate(LINES, "198.51.100.26") == f"{made} the state directory"
    assert certificate("Tls: terminate\nTlsCa: /ca.pem /ca.key\n", SERVER) == f"{made} /ca.pem"
    assert certificate("Tls: pass\n", SERVER) == ""


def test_a_client_that_rejects_its_certificate(say: Any) -> None:
    passes = "its next connections to that server pass for 600 s, nothing is judged (TlsRejected: pass)"
    lines = "Tls: terminate\nTlsRejected: pass\nTlsRejectedTimeOut: 600\n"
    assert f"\n             if the client rejects it: {passes}\n" in say(lines, CLIENT, SERVER)
    assert f"TLS of a client that rejects its certificate: {passes}\n" in say(lines)
    assert json.loads(say(lines, CLIENT, SERVER, "--json"))["rejected"] == passes
    assert json.loads(say("Tls: pass\nTlsRejected: pass\n", CLIENT, SERVER, "--json"))["rejected"] == ""


def test_without_a_line(say: Any) -> None:
    assert say("", CLIENT, SERVER).splitlines()[1] == (
        "TLS          strip: STARTTLS is removed, mail is in clear: there is no Tls line"
    )


def test_wrapped(say: Any) -> None:
    answer = say("Tls: terminate\nTlsWrapped: 465\nRulePort: 465\n", CLIENT, f"{SERVER}:465")
    assert answer.splitlines()[0] == "connection   192.0.2.7 to 198.51.100.25, port 465, TLS from the first octet"
    assert "in clear" not in answer


def test_the_table_of_check_config(say: Any) -> None:
    text = LINES + "Filter: virus clamd /run/clamd\nTlsWrapped: 2465\n"
    records = "TLS to a server with TLSA records for the client's server name: pass (TlsDane)"
    said = [line.strip() for line in say(text.replace("Tls: strip", "Tls: terminate")).splitlines()]
    assert [line for line in said if "TLS" in line or "certificate" in line] == [
        "TLS 1: pass server=198.51.100.0/24 name=*.bank.example: nothing is judged, the client has TLS with the server",
        "TLS 2: terminate server=198.51.100.0/24: TLS on both legs, messages are judged",
        "TLS 3: refuse client=192.0.2.66: a client that asks for TLS is refused",
        "TLS 4: terminate: TLS on both legs, messages are judged",
        "TLS from the first octet on port 2465",
        "TLS to the server 1: dane server=198.51.100.0/24",
        "TLS to the server 2: secure port=587 match=mx.example",
        f"{records}, and terminate where they name its TlsCertificate",
        "TLS of a client that rejects its certificate: it cannot send (TlsRejected: fail)",
        "certificate for clients: /etc/mx.pem /etc/mx.key server=198.51.100.25",
        "certificate for clients of other servers: made for each server, signed by the CA in the state directory",
    ]
    assert "TLS on ports 465 and 587: strip without the word submission refuses, like refuse" in say("Tls: strip\n")
    assert "TLS on ports" not in say("Tls: strip submission\n")
    assert f"{records}\n" in say("Tls: terminate\n")


@pytest.mark.parametrize("arguments", [["mx.example", SERVER], [CLIENT, "mx.example"], [CLIENT]])
def test_usage(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["tls-policy", *arguments])
    assert end.value.code == 2
