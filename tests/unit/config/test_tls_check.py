"""All lines about TLS together: what check-config refuses, and what it warns of."""

from __future__ import annotations

import pytest

from proxsmtp_tp.config.reader import ConfigError, parse_config

CLEAR = "mail of these connections crosses the network in clear, and senders that insist on TLS cannot send"


def problems(*lines: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_config("\n".join(["TransparentProxy: client", *lines]).encode(), "gateway.conf")
    return [problem.text for problem in caught.value.problems]


def test_the_line_of_a_directive_that_repeats() -> None:
    """Each text names the line that it is about, not the last one of its name."""
    lines = ["TransparentProxy: client", "Tls: strip port=587", "Tls: strip port=25", "Tls: pass"]
    with pytest.raises(ConfigError) as caught:
        parse_config("\n".join(lines).encode(), "gateway.conf")
    assert [problem.line for problem in caught.value.problems] == [2]
    found = parse_config("\n".join([lines[0], *lines[2:]]).encode(), "gateway.conf")
    assert [warning.line for warning in found.warnings] == [2]


SILENT = "TLS begins with the first octet there, and no mail passes: write TlsWrapped: 465"


def warnings(*lines: str) -> list[str]:
    found = parse_config("\n".join(["TransparentProxy: client", *lines]).encode(), "gateway.conf")
    return [warning.text for warning in found.warnings]


@pytest.mark.parametrize(
    "lines",
    [
        (),
        ("Tls: terminate",),
        ("Tls: pass server=192.0.2.0/24", "Tls: terminate"),
        ("Tls: pass server=192.0.2.0/24 name=*.example", "Tls: refuse"),
        ("RulePort: 25, 465, 587", "TlsWrapped: 465", "Tls: terminate"),
        ("UpstreamTls: encrypt", "Tls: terminate"),
        ("TlsCa: /ca.pem", "TlsUntrustedCa: /other.pem", "Tls: terminate"),
        ("TlsWrapped: 465", "Tls: terminate"),
        ("RulePort: 587",),
        ("XClient: on", "Tls: pass"),
        ("XClient: on", "TlsWrapped: 465", "Tls: refuse"),
        ("XClient: on", "TlsWrapped: 465", "Tls: refuse port=465", "Tls: pass"),
        ("XClient: on", "TlsWrapped: 465", "Tls: terminate", "TlsDane: terminate"),
        ("XClient: off", "TlsWrapped: 465", "Tls: pass"),
        ("Tls: refuse", "TlsRejected: pass"),
        ("Tls: terminate", "TlsRejected: fail"),
    ],
)
def test_nothing_to_say(lines: tuple[str, ...]) -> None:
    assert warnings(*lines) == []


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        (["UpstreamTls: encrypt"], "UpstreamTls: write Tls lines, too"),
        (["TlsWrapped: 465"], "TlsWrapped: write Tls lines, too"),
        (["Tls: terminate client=192.0.2.0/24"], "Tls: no line is for all other connections"),
        (["Tls: pass name=*.example"], "Tls: no line is for all other connections"),
        (
            ["TlsCa: /ca.pem /ca.key", "TlsUntrustedCa: /ca.pem /ca.key", "Tls: terminate"],
            "TlsUntrustedCa: the same as TlsCa",
        ),
        (
            ["Tls: pass name=*.example", "Tls: strip"],
            "Tls: strip: comes after `pass name=*.example` for the same connections",
        ),
        (
            ["Tls: pass server=192.0.2.0/24 name=*.example", "Tls: strip server=192.0.2.7", "Tls: terminate"],
            "Tls: strip server=192.0.2.7: comes after",
        ),
        (
            ["Tls: pass server=192.0.2.0/24 name=*.example", "Tls: refuse server=192.0.2.0/25", "Tls: strip"],
            "Tls: strip: comes after",
        ),
        (["RulePort: 25, 587", "Tls: strip"], "Tls: strip: not on port 587, which is for submission"),
        (["RulePort: 465", "Tls: strip"], "Tls: strip: not on port 465, which is for submission"),
        (["Tls: strip port=587", "Tls: terminate"], "Tls: strip port=587: not on port 587"),
        (["OutAddress: 192.0.2.1:587", "Tls: strip"], "Tls: strip: not on port 587"),
        (["TlsWrapped: 465", "Tls: strip submission"], "Tls: strip submission: not on port 465: with TlsWrapped"),
        (["TlsWrapped: 2465", "Tls: strip"], "Tls: strip: not on port 2465: with TlsWrapped"),
        (["XClient: on", "TlsWrapped: 465", "Tls: pass"], "Tls: pass: not on port 465 of TlsWrapped with XClient"),
        (
            ["XClient: on", "TlsWrapped: 465", "Tls: pass client=192.0.2.7", "Tls: refuse"],
            "Tls: pass client=192.0.2.7: not on port 465 of TlsWrapped with XClient",
        ),
        (
            ["XClient: on", "TlsWrapped: 465", "Tls: terminate", "TlsDane: refuse", "TlsRejected: pass"],
            "TlsRejected: pass: not on port 465 of TlsWrapped with XClient",
        ),
        (
            ["XClient: on", "TlsWrapped: 465", "Tls: terminate"],
            "Tls: terminate: not on port 465 of TlsWrapped with XClient",
        ),
    ],
)
def test_problems(lines: list[str], problem: str) -> None:
    (found,) = problems(*lines)
    assert found.startswith(problem)


@pytest.mark.parametrize(
    "lines",
    [
        ["RulePort: 25, 587", "Tls: strip submission"],
        ["RulePort: 25, 587", "Tls: terminate port=587", "Tls: strip"],
        ["Tls: pass server=192.0.2.0/24 name=*.example", "Tls: strip server=198.51.100.0/24", "Tls: terminate"],
        ["Tls: pass server=192.0.2.0/24 name=*.example", "Tls: terminate server=192.0.2.0/24", "Tls: strip"],
        ["Tls: pass server=192.0.2.1 port=25 name=*.example", "Tls: strip port=2525", "Tls: terminate"],
        [
            "Tls: pass server=192.0.2.1 client=2001:db8::1 name=a.example",
            "Tls: strip client=192.0.2.1",
            "Tls: terminate",
        ],
    ],
)
def test_strip_where_it_is_possible_is_a_warning(lines: list[str]) -> None:
    (found,) = warnings(*lines)
    assert found.startswith("Tls: strip")
    assert found.endswith(CLEAR)


@pytest.mark.parametrize(
    ("lines", "warning"),
    [
        (["Tls: strip"], f"Tls: strip: {CLEAR}"),
        (
            ["Tls: pass name=*.example", "Tls: terminate"],
            "Tls: pass name=*.example: any client can say this name to any server and is not judged then: add server=",
        ),
        (
            ["Tls: terminate", "Tls: pass client=192.0.2.1"],
            "Tls: pass client=192.0.2.1: never used, because `terminate` is first",
        ),
        (
            ["Tls: pass client=192.0.2.0/24 port=25,26", "Tls: refuse client=192.0.2.7 port=25", "Tls: terminate"],
            "Tls: refuse client=192.0.2.7 port=25: never used, because `pass client=192.0.2.0/24 port=25,26` is first",
        ),
        (
            ["RulePort: 25, 465", "Tls: terminate"],
            f"RulePort: 465: {SILENT}",
        ),
        (
            ["RulePort: 25, 465"],
            f"RulePort: 465: {SILENT} and Tls lines, or take the port out",
        ),
        (
            ["TlsWrapped: 465, 587", "Tls: terminate"],
            "TlsWrapped: 587: servers greet in clear there, and TLS begins with STARTTLS: every connection would fail",
        ),
        (
            ["Tls: terminate", "TlsRejected: pass"],
            "TlsRejected: pass: a client that rejects its certificate on purpose is not judged",
        ),
        (["TlsCa: /ca.pem", "Tls: pass"], "TlsCa: never used: no Tls line says terminate"),
        (["TlsCertificate: /mx.pem", "Tls: pass"], "TlsCertificate: never used: no Tls line says terminate"),
    ],
)
def test_warnings(lines: list[str], warning: str) -> None:
    assert warnings(*lines) == [warning]


def test_a_wrong_line_is_the_only_one_reported() -> None:
    assert problems("Tls: drop", "UpstreamTls: encrypt") == ["Tls: 'drop' is not one of terminate, pass, strip, refuse"]


@pytest.mark.parametrize(("wrapped", "warned"), [("465", False), ("2465", True)])
def test_a_fixed_server_on_port_465(wrapped: str, warned: bool) -> None:
    text = f"OutAddress: 192.0.2.1:465\nTls: terminate\nTlsWrapped: {wrapped}\n"
    found = [warning.text for warning in parse_config(text.encode(), "gateway.conf").warnings]
    assert (f"OutAddress: 192.0.2.1:465: {SILENT}" in found) is warned
