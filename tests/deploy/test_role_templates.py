"""The templates of the role, filled in by Ansible on this machine: a chain of filters has a line for each filter."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from proxsmtp_tp.config.reader import parse_config
from tests.deploy.machines import tool
from tools.deb import TREE

if TYPE_CHECKING:
    from pathlib import Path

ROLE = TREE / "ansible/roles/proxsmtp_tp"
CHAIN = [
    "one clamd 192.0.2.1:3310,192.0.2.2:3310",
    "two pipe sed -e s/a/b/",
    "three milter /run/a.sock skip=192.0.2.0/24",
]


def filled_in(
    tmp_path: Path, template: str, overrides: dict[str, Any] | None = None, yaml: str = "{}", **variables: Any
) -> str:
    """The text of a template for an instance with these `overrides`, and these variables of the role, also in YAML."""
    values = {f"proxsmtp_tp_{name}": value for name, value in variables.items()}
    (tmp_path / "values.json").write_text(
        json.dumps(values | {"proxsmtp_tp_overrides": overrides or {}, "ansible_python_interpreter": sys.executable})
    )
    play = {
        "hosts": "localhost",
        "connection": "local",
        "gather_facts": False,
        "vars_files": [str(ROLE / part) for part in ("defaults/main/role.yml", "defaults/main/directives.yml")]
        + [str(ROLE / part) for part in ("vars/main/role.yml", "vars/main/directives.yml")],
        "tasks": [
            {"ansible.builtin.template": {"src": str(ROLE / "templates" / template), "dest": f"{tmp_path}/made"}}
        ],
    }
    (tmp_path / "more.yml").write_text(yaml)
    (tmp_path / "play.yml").write_text(json.dumps([play]))
    extra = ["-e", f"@{tmp_path}/values.json", "-e", f"@{tmp_path}/more.yml"]
    command = [tool("ansible-playbook"), "-i", "localhost,", *extra, f"{tmp_path}/play.yml"]
    own = {**os.environ, "ANSIBLE_HOME": str(tmp_path), "LC_ALL": "C.UTF-8"}
    done = subprocess.run(command, cwd=tmp_path, env=own, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return (tmp_path / "made").read_text()


def chain(text: str) -> list[str]:
    """The lines of the chain, which the program reads as they are meant."""
    lines = re.findall(r"^Filter: (.*)$", text, re.MULTILINE)
    settings = parse_config(text.encode(), "/etc/proxsmtp-tp/gateway.conf").settings
    assert [line.name for line in settings.filter] == [line.split()[0] for line in lines]
    return lines


def test_each_filter_has_a_line_in_their_order(tmp_path: Path) -> None:
    text = filled_in(tmp_path, "proxsmtpd.conf.j2", filter=CHAIN, rule_interface=["lan", "eth1"])
    assert chain(text) == CHAIN
    assert "RuleInterface: lan, eth1\n" in text


def test_each_line_about_tls_is_a_line(tmp_path: Path) -> None:
    """In their order: the first one that fits counts."""
    given: dict[str, Any] = {
        "tls": ["pass server=192.0.2.0/24,2001:db8::/32 name=*.bank.example", "terminate"],
        "upstream_tls": ["verify server=198.51.100.25 match=mx.example,*.example", "may"],
        "tls_certificate": ["/etc/proxsmtp-tp/keys/a.pem server=198.51.100.25", "/etc/proxsmtp-tp/keys/b.pem"],
        "milter_macro": ["j mx.example", "daemon_name one, two"],
        "tls_wrapped": [465, 2465],
    }
    text = filled_in(tmp_path, "proxsmtpd.conf.j2", **given)
    settings = parse_config(text.encode(), "/etc/proxsmtp-tp/gateway.conf").settings
    for name in ("tls", "upstream_tls", "tls_certificate"):
        assert [str(line) for line in getattr(settings, name)] == given[name]
    assert settings.milter_macro == (("j", "mx.example"), ("{daemon_name}", "one, two"))
    assert settings.tls_wrapped == (465, 2465)


@pytest.mark.parametrize("given", ["", "/srv/ca.pem"])
def test_the_second_daemon_of_an_upgrade_has_the_cas_of_the_first(given: str, tmp_path: Path) -> None:
    more: dict[str, Any] = {"kept": "/var/lib/proxsmtp-tp/gateway/tls", "tls": ["terminate"], "tls_ca": given}
    more["shared_cas"] = [{"directive": "TlsCa", "name": "ca", "given": given}]
    settings = parse_config(filled_in(tmp_path, "proxsmtpd.conf.j2", **more).encode(), "/srv/a.conf").settings
    ours = f"{more['kept']}/ca.pem {more['kept']}/ca.key"
    assert str(settings.tls_ca) == (given or ours)


def test_an_instance_has_its_own_chain(tmp_path: Path) -> None:
    assert chain(filled_in(tmp_path, "proxsmtpd.conf.j2", {"filter": CHAIN[1:]}, filter=CHAIN)) == CHAIN[1:]


def test_without_a_chain(tmp_path: Path) -> None:
    assert chain(filled_in(tmp_path, "proxsmtpd.conf.j2")) == []


def examples() -> list[str]:
    """The variables that the README shows: of a chain, and of TLS."""
    return re.findall(r"^```yaml\n(.*?)^```$", (ROLE / "README.md").read_text(), re.MULTILINE | re.DOTALL)


def test_the_example_of_tls_in_the_readme(tmp_path: Path) -> None:
    _, text = examples()
    filled = filled_in(tmp_path, "proxsmtpd.conf.j2", yaml=text, vault_mx_key="x")
    settings = parse_config(filled.encode(), "/srv/a.conf").settings
    assert [str(line) for line in settings.tls] == ["terminate server=198.51.100.25", "strip"]
    assert [str(line) for line in settings.tls_certificate] == [
        "/etc/proxsmtp-tp/tls/mx.pem /etc/proxsmtp-tp/tls/mx.key server=198.51.100.25"
    ]


def test_the_example_in_the_readme(tmp_path: Path) -> None:
    text, _ = examples()
    wanted = re.findall(r"^  - (\w+ \w+ /.*|\w+ rspamd .*)$", text, re.MULTILINE)
    assert len(wanted) == 4
    assert chain(filled_in(tmp_path, "proxsmtpd.conf.j2", yaml=text)) == wanted
    assert "\nSupplementaryGroups=opendkim\n" in filled_in(tmp_path, "daemon.conf.j2", yaml=text)


def test_no_groups(tmp_path: Path) -> None:
    assert "SupplementaryGroups" not in filled_in(tmp_path, "daemon.conf.j2")
