"""install-service and remove-service on a machine image: what is written, what goes again, what is refused."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import pytest

from proxsmtp_tp.cli import service
from proxsmtp_tp.cli.main import main
from proxsmtp_tp.cli.service_units import PROGRAM, affected, capabilities, daemon_drop_in, instance_files, unit_files
from proxsmtp_tp.config.addresses import InetAddress
from proxsmtp_tp.config.settings import RuleFail, RuleMode, Settings, TransparentProxy
from proxsmtp_tp.service import installed


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An image with one configuration; systemctl(1) is asked for nothing but links."""
    (tmp_path / "etc/proxsmtp-tp").mkdir(parents=True)
    configure(tmp_path, "TransparentProxy: client\nRuleInterface: lan\n")
    monkeypatch.setattr(service, "program_path", lambda: "/opt/somewhere/bin/proxsmtp-tp")
    return tmp_path


def configure(root: Path, text: str, name: str = "gateway") -> None:
    (root / f"etc/proxsmtp-tp/{name}.conf").write_text(text)


def files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file() or path.is_symlink()}


def test_install_writes_units_that_start_this_program(root: Path) -> None:
    before = files(root)
    assert main(["install-service", "--root", str(root)]) == 0
    unit = (root / "etc/systemd/system/proxsmtp-tp@.service").read_text()
    assert "ExecStart=/opt/somewhere/bin/proxsmtp-tp serve -f /etc/proxsmtp-tp/%i.conf\n" in unit
    assert PROGRAM not in unit
    rules = (root / "etc/systemd/system/proxsmtp-tp-rules@.service").read_text()
    # systemd does not try a failed reload again (systemd.service(5), Restart=).
    reload = "install-rules --or-refuse-mail --retry 300 -f /etc/proxsmtp-tp/%i.conf"
    assert f"ExecReload=/opt/somewhere/bin/proxsmtp-tp {reload}\n" in rules
    enabled = {path for path in files(root) if ".wants/" in path}
    assert enabled == {
        "etc/systemd/system/multi-user.target.wants/proxsmtp-tp.target",
        "etc/systemd/system/proxsmtp-tp.target.wants/proxsmtp-tp@gateway.service",
        "etc/systemd/system/proxsmtp-tp@gateway.service.wants/proxsmtp-tp-rules@gateway.service",
    }
    assert main(["remove-service", "--root", str(root)]) == 0
    assert files(root) == before


def test_a_second_install_writes_nothing(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["install-service", "--root", str(root)])
    capsys.readouterr()
    assert main(["install-service", "--root", str(root)]) == 0
    assert "write" not in capsys.readouterr().out


def test_dry_run_says_it_and_does_nothing(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(root)
    assert main(["install-service", "--root", str(root), "--dry-run"]) == 0
    assert f"would write {root}/etc/systemd/system/proxsmtp-tp@.service" in capsys.readouterr().out
    assert files(root) == before


def test_a_wrong_configuration_changes_nothing(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    configure(root, "TimeOut: never\n")
    before = files(root)
    assert main(["install-service", "--root", str(root)]) == 2
    assert "TimeOut" in capsys.readouterr().err
    assert files(root) == before


def test_a_drop_in_that_is_not_wanted_any_more_is_removed(root: Path) -> None:
    configure(root, "TransparentProxy: client\nRuleInterface: lan\nRuleFail: open\n")
    main(["install-service", "--root", str(root)])
    rules = root / "etc/systemd/system/proxsmtp-tp-rules@gateway.service.d/10-configuration.conf"
    assert "StopPropagatedFrom=proxsmtp-tp@gateway.service\n" in rules.read_text()
    configure(root, "TransparentProxy: client\nRuleInterface: lan\n")
    main(["install-service", "--root", str(root)])
    assert not rules.parent.exists()


def test_rules_that_are_not_wanted_any_more_are_not_started_at_boot(root: Path) -> None:
    main(["install-service", "--root", str(root)])
    link = "etc/systemd/system/proxsmtp-tp@gateway.service.wants/proxsmtp-tp-rules@gateway.service"
    assert link in files(root)
    configure(root, "TransparentProxy: client\n")
    assert main(["install-service", "--root", str(root)]) == 0
    assert link not in files(root)
    assert "etc/systemd/system/proxsmtp-tp.target.wants/proxsmtp-tp@gateway.service" in files(root)


def test_remove_leaves_other_peoples_drop_ins(root: Path) -> None:
    main(["install-service", "--root", str(root)])
    own = root / "etc/systemd/system/proxsmtp-tp@gateway.service.d/override.conf"
    own.write_text("[Service]\nNice=1\n")
    assert main(["remove-service", "--root", str(root)]) == 0
    assert own.exists()


def test_the_state_goes_only_with_purge(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    main(["install-service", "--root", str(root)])
    (root / "var/lib/proxsmtp-tp/gateway").mkdir(parents=True)
    asked: list[str] = []

    def command(*words: str, check: bool = True) -> int:
        asked.append(words[0])
        return 0

    monkeypatch.setattr(service, "_command", command)
    remove = ["remove-service", "--root", str(root)]
    for arguments, left in ((["--purge", "--dry-run"], True), ([], True), (["--purge"], False)):
        capsys.readouterr()
        assert main([*remove, *arguments]) == 0
        assert (root / "var/lib/proxsmtp-tp").exists() is left
        said = capsys.readouterr().out
        assert (f"remove {root}/var/lib/proxsmtp-tp\n" in said) is ("--purge" in arguments)
        if not ("--purge" in arguments and not left):
            assert f"remove {root}/etc/systemd/system/proxsmtp-tp@.service\n" in said
    assert "userdel" not in asked  # the user is this host's, not the image's


def test_remove_of_one_instance_leaves_the_other(root: Path) -> None:
    configure(root, "TransparentProxy: client\n", "second")
    main(["install-service", "--root", str(root)])
    assert main(["remove-service", "--root", str(root), "second"]) == 0
    left = files(root)
    assert "etc/systemd/system/proxsmtp-tp.target.wants/proxsmtp-tp@gateway.service" in left
    assert not {path for path in left if "@second" in path}


def test_remove_works_without_the_configuration(root: Path) -> None:
    main(["install-service", "--root", str(root)])
    shutil.rmtree(root / "etc/proxsmtp-tp")
    assert main(["remove-service", "--root", str(root)]) == 0
    assert files(root) == set()


def test_a_program_that_the_unit_cannot_see_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pathlib.Path.is_file", lambda _: True)
    monkeypatch.setattr("sysconfig.get_path", lambda _: "/home/alice/venv/bin")
    assert main(["install-service", "--root", str(tmp_path)]) == 1
    assert "install proxsmtp-tp under /opt" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (Settings(transparent_proxy=TransparentProxy.CLIENT), []),
        (Settings(transparent_proxy=TransparentProxy.FULL), ["CAP_NET_RAW"]),
        (Settings(rule_mode=RuleMode.TPROXY), ["CAP_NET_RAW"]),
        (Settings(listen=(InetAddress("", 25),)), ["CAP_NET_BIND_SERVICE"]),
    ],
)
def test_capabilities_only_where_they_are_needed(settings: Settings, expected: list[str]) -> None:
    assert capabilities(settings) == expected
    assert ("AmbientCapabilities=" in daemon_drop_in(settings)) == bool(expected)


def test_systemd_waits_longer_than_the_drain() -> None:
    assert "TimeoutStopSec=135\n" in daemon_drop_in(Settings(drain_time_out=120))


def test_rules_depend_on_the_daemon_only_where_they_fail_open() -> None:
    closed = instance_files("a", Settings(rule_interface=("lan",)), "/c")
    opened = instance_files("a", Settings(rule_interface=("lan",), rule_fail=RuleFail.OPEN), "/c")
    assert [path for path in closed if "rules" in path] == []
    assert len([path for path in opened if "rules" in path]) == 1


def test_the_unit_has_no_capability_of_its_own() -> None:
    unit = unit_files(PROGRAM)["etc/systemd/system/proxsmtp-tp@.service"]
    assert "\nCapabilityBoundingSet=\n" in unit
    assert "\nAmbientCapabilities=\n" in unit


SPOOL = "/var/lib/proxsmtp-tp/spool"  # of README and proxsmtpd.conf(5)


def test_the_temp_directory_of_the_examples_is_the_units() -> None:
    unit = unit_files(PROGRAM)["etc/systemd/system/proxsmtp-tp@.service"]
    assert "\nStateDirectory=proxsmtp-tp/%i proxsmtp-tp/spool\n" in unit
    assert "TempDirectory" not in daemon_drop_in(Settings(temp_directory=SPOOL))


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (Settings(), ""),
        (Settings(temp_directory="/var/tmp/px"), ""),
        (Settings(temp_directory=SPOOL), ""),
        (Settings(temp_directory="/srv/spool"), 'ReadWritePaths="-/srv/spool"\n'),
        (Settings(temp_directory='/srv/a "b" 5%'), 'ReadWritePaths="-/srv/a \\"b\\" 5%%"\n'),
        # systemd gives a StateDirectory to the unit's user: two users must not take it from each other.
        (Settings(temp_directory=SPOOL, user="mail"), f'ReadWritePaths="-{SPOOL}"\n'),
    ],
)
def test_the_daemon_may_write_in_its_temp_directory(settings: Settings, line: str) -> None:
    text = daemon_drop_in(settings)
    assert ("ReadWritePaths" in text) == bool(line)
    assert line in text
    assert ("StateDirectory=\nStateDirectory=proxsmtp-tp/%i\n" in text) == (settings.user is not None)


DAEMON, RULES = "proxsmtp-tp@gateway.service", "proxsmtp-tp-rules@gateway.service"
OTHER = "proxsmtp-tp@other.service"


@pytest.mark.parametrize(
    ("changed", "units"),
    [
        ([], []),
        (["etc/systemd/system/proxsmtp-tp@.service"], [DAEMON, OTHER, RULES]),
        (["etc/systemd/system/proxsmtp-tp@gateway.service.d/10-configuration.conf"], [DAEMON, RULES]),
        (["etc/systemd/system/proxsmtp-tp-rules@.service"], [RULES]),
        (["etc/systemd/system/proxsmtp-tp-rules@gateway.service.d/10-configuration.conf"], [RULES]),
        (["etc/systemd/system/proxsmtp-tp@other.service.d/10-configuration.conf"], [OTHER]),
        (["etc/sysusers.d/proxsmtp-tp.conf"], []),
    ],
)
def test_which_units_a_change_affects(changed: list[str], units: list[str]) -> None:
    assert affected(changed, [RULES, DAEMON, OTHER]) == units


@pytest.mark.parametrize("no_start", [False, True])
def test_units_that_run_take_up_what_has_changed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], no_start: bool
) -> None:
    done: list[str] = []

    def command(*words: str, check: bool = True) -> int:
        done.append(" ".join(words))
        return 0 if words[-1] in {DAEMON, RULES} or check else 3  # the third unit does not run

    monkeypatch.setattr(service, "_command", command)
    monkeypatch.setattr(service, "_state", lambda _: "active")
    args = argparse.Namespace(dry_run=False, root=Path("/"), no_start=no_start)
    service._settle(args, ["proxsmtp-tp.target", DAEMON, RULES, OTHER], [], [DAEMON, OTHER, RULES])
    said = capsys.readouterr().out.splitlines()
    applied = [f"systemctl restart {DAEMON}", f"systemctl reload-or-restart {RULES}"]
    taken_up = [line for line in done if line.startswith(("systemctl restart", "systemctl reload"))]
    assert taken_up == ([] if no_start else applied)
    started = f"systemctl start proxsmtp-tp.target {DAEMON} {RULES} {OTHER}"
    assert (done[-1] == started) is not no_start
    assert (started in done) is not no_start
    if no_start:
        assert said[0] == f"{DAEMON} runs as before: `systemctl restart {DAEMON}` applies the change"
        assert said[1] == f"{RULES} runs as before: `systemctl reload-or-restart {RULES}` applies the change"
    else:
        assert said[:2] == [f"restart {DAEMON}", f"reload-or-restart {RULES}"]
        assert done.index("systemctl daemon-reload") < done.index(applied[0])


@pytest.mark.parametrize("state", ["activating", "deactivating"])
def test_a_daemon_that_systemd_starts_again_and_again_is_started_with_the_new_configuration(
    monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    """`start` alone would join the present try, which has read the old one."""
    done: list[str] = []

    def command(*words: str, check: bool = True) -> int:
        done.append(" ".join(words))
        return 0 if check else 3

    monkeypatch.setattr(service, "_command", command)
    monkeypatch.setattr(service, "_state", lambda unit: state if unit == DAEMON else "active")
    args = argparse.Namespace(dry_run=False, root=Path("/"), no_start=False)
    service._settle(args, ["proxsmtp-tp.target", DAEMON, RULES, OTHER], [], [])
    assert done[-2:] == [f"systemctl restart {DAEMON}", f"systemctl start proxsmtp-tp.target {DAEMON} {RULES} {OTHER}"]


# The Debian package has the units, and install-service only what depends on an instance.


@pytest.fixture
def packaged(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An image with the package, whose program runs."""
    units = root / "usr/lib/systemd/system"
    units.mkdir(parents=True)
    for path, text in unit_files("/usr/bin/proxsmtp-tp").items():
        if path.startswith("etc/systemd/system/"):
            (units / path.rpartition("/")[2]).write_text(text)
    monkeypatch.setattr(installed, "_HERE", installed.SITE)
    return root


def test_the_packages_program_writes_no_units(packaged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(packaged)
    assert main(["install-service", "--root", str(packaged)]) == 0
    new = files(packaged) - before
    assert {path for path in new if ".wants/" not in path} == {
        "etc/systemd/system/proxsmtp-tp@gateway.service.d/10-configuration.conf"
    }
    assert "etc/systemd/system/multi-user.target.wants/proxsmtp-tp.target" in new
    capsys.readouterr()
    assert main(["remove-service", "--root", str(packaged)]) == 0
    assert files(packaged) == before


def test_the_packages_program_deletes_units_that_start_another_one(
    packaged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path, text in unit_files("/opt/proxsmtp-tp/bin/proxsmtp-tp").items():
        (packaged / path).parent.mkdir(parents=True, exist_ok=True)
        (packaged / path).write_text(text)
    assert main(["install-service", "--root", str(packaged)]) == 0
    assert not {path for path in files(packaged) if path in unit_files("x")}
    assert f"remove {packaged}/etc/systemd/system/proxsmtp-tp@.service\n" in capsys.readouterr().out


def test_an_administrators_own_unit_stays(packaged: Path) -> None:
    own = packaged / "etc/systemd/system/proxsmtp-tp@.service"
    own.parent.mkdir(parents=True)
    own.write_text("[Service]\nExecStart=/usr/bin/proxsmtp-tp serve -f /etc/proxsmtp-tp/%i.conf\nNice=1\n")
    assert main(["install-service", "--root", str(packaged)]) == 0
    assert main(["remove-service", "--root", str(packaged)]) == 0
    assert own.exists()


def test_another_installation_writes_no_units_beside_the_package(
    packaged: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(installed, "_HERE", packaged)
    before = files(packaged)
    assert main(["install-service", "--root", str(packaged)]) == 1
    assert "use its command, /usr/bin/proxsmtp-tp" in capsys.readouterr().err
    assert files(packaged) == before


METRICS = "etc/systemd/system/proxsmtp-tp-metrics@gateway.service.d/10-configuration.conf"
WANTED = "etc/systemd/system/multi-user.target.wants/proxsmtp-tp-metrics@gateway.service"


def test_metrics_are_served_where_the_administrator_says(root: Path) -> None:
    before = files(root)
    assert main(["install-service", "--root", str(root)]) == 0
    assert not (root / METRICS).exists()
    assert main(["install-service", "--root", str(root), "--metrics", "192.0.2.1"]) == 0
    assert "\nEnvironment=LISTEN=192.0.2.1:9725\n" in (root / METRICS).read_text()
    assert WANTED in files(root)
    unit = (root / "etc/systemd/system/proxsmtp-tp-metrics@.service").read_text()
    assert "ExecStart=/opt/somewhere/bin/proxsmtp-tp metrics --instance %i --listen ${LISTEN}\n" in unit
    # It stays until it is ended, and the daemon's user may be another one.
    assert main(["install-service", "--root", str(root)]) == 0
    assert "192.0.2.1:9725" in (root / METRICS).read_text()
    configure(root, "TransparentProxy: client\nRuleInterface: lan\nUser: nobody\n")
    assert main(["install-service", "--root", str(root), "--metrics", "[2001:db8::1]:9000"]) == 0
    assert (
        "\nEnvironment=LISTEN=[2001:db8::1]:9000\nSupplementaryGroups=\nSupplementaryGroups=nobody\n"
        in (root / METRICS).read_text()
    )
    assert main(["install-service", "--root", str(root), "--metrics", "off"]) == 0
    assert not (root / METRICS).exists()
    assert WANTED not in files(root)
    assert main(["install-service", "--root", str(root), "--metrics", "192.0.2.1"]) == 0
    assert main(["remove-service", "--root", str(root)]) == 0
    assert files(root) == before


@pytest.mark.parametrize(
    ("given", "said"), [("/run/x", "--metrics: "), ("192.0.2.1:x", "--metrics: "), ("192.0.2.1:1", "for one instance")]
)
def test_metrics_at_no_address(root: Path, capsys: pytest.CaptureFixture[str], given: str, said: str) -> None:
    configure(root, "RuleInterface: wan\nTransparentProxy: client\n", "other")
    before = files(root)
    assert main(["install-service", "--root", str(root), "--metrics", given]) == 2
    assert said in capsys.readouterr().err
    assert files(root) == before
