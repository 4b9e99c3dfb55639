"""The demo: real mail through a real gateway, shown hop by hop. `proxsmtp-tp demo` runs this module, isolated.

A sender, a gateway and an MX in namespaces of their own; the daemon and the rules are started by the commands that
an administrator types. In both modes of interception, with the gateway's and with the client's address, over IPv4
and IPv6, three mails are sent: a good one, one that the filter refuses, one that it discards. Then one by TLS is
judged, and one passes (`demo_tls`). Everything shown is also checked. At the end the rules are removed and the gateway
is compared with what it was.

Exit status: 0 when all of it was as it must be; 1 with the reason on standard error; 130 when interrupted.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from proxsmtp_tp.gateway.python import module_command
from proxsmtp_tp.lab import demo_tls
from proxsmtp_tp.lab.client import Client
from proxsmtp_tp.lab.demo_tls import SECONDS, expect
from proxsmtp_tp.lab.gateway import Instance, changes, host_state
from proxsmtp_tp.lab.mx import Arrived, Closed, Commanded, Connected, Journal
from proxsmtp_tp.lab.network import LabError, gateway_network
from proxsmtp_tp.lab.scenario import MAILS, RECIPIENT, SENDER, SETUPS, WAYS
from proxsmtp_tp.lab.screen import Screen, printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from proxsmtp_tp.lab.network import GatewayNetwork
    from proxsmtp_tp.lab.scenario import Mail, Setup, Way

DAEMON_USER = "nobody"
PRIVATE = "/run"
"""Under lab.isolate this is a file system of our own: its files are gone when we end, even by a kill -9."""

PICTURE = """
      sender                     gateway                      mx
     ┌────────────────┐  lan  ┌─────────────────────┐  wan  ┌────────────────┐
     │ 192.0.2.10     ├───────┤ 192.0.2.1           ├───────┤ 198.51.100.25  │
     │ 2001:db8:1::10 │       │        198.51.100.1 │       │ 2001:db8:2::25 │
     └────────────────┘       └─────────────────────┘       └────────────────┘

The sender calls the MX; neither is set up for the gateway between them. There the firewall redirects
port 25 to proxsmtp-tp, whose filter is a shell script: it marks good mail with a header, refuses
the GTUBE test string, and discards mail that asks for it. Before that, the MX sees none of it."""


class Interruption:
    """SIGINT as KeyboardInterrupt, also if the first one was raised in a place that ignores exceptions.

    A finaliser is such a place: the interpreter only prints the exception, which `_unraisable` suppresses. So is the
    end of a `with` that raises an error of its own: smtplib sends QUIT there, and fails on the earlier reply.
    """

    def __init__(self) -> None:
        self.came = False
        signal.signal(signal.SIGINT, self._hear)
        sys.unraisablehook = self._unraisable

    def _hear(self, *_: object) -> None:
        self.came = True
        raise KeyboardInterrupt

    @staticmethod
    def _unraisable(what: sys.UnraisableHookArgs) -> None:
        if not issubclass(what.exc_type, KeyboardInterrupt):
            sys.__unraisablehook__(what)

    def raise_late(self) -> None:
        """Raise KeyboardInterrupt if it came and we are still here."""
        if self.came:
            raise KeyboardInterrupt


class Demo:
    """The lab, its hosts, and the output."""

    def __init__(self, lab: GatewayNetwork, directory: Path, screen: Screen, interruption: Interruption) -> None:
        self._lab = lab
        self._interruption = interruption
        self._directory = directory
        self._screen = screen
        self._journal = Journal(directory / "mx.jsonl")
        self._rows: list[str] = []
        self._mails = 0
        self._certificate = demo_tls.make_certificate(directory)

    def run(self) -> None:
        """Run the whole demo. Raises LabError or OSError where something is not as it must be."""
        self._screen.line(self._screen.paint("strong", "A transparent SMTP gateway in namespaces of this machine"))
        self._screen.line(PICTURE)
        self._set_up()
        self._send_directly()  # what the kernel sets up at a first connection must not count as a change of ours
        before = host_state(self._lab.gateway)
        for number, setup in enumerate(SETUPS, 1):
            seen = self._screen.paint("strong", f"the MX sees the {setup.whose}'s address")
            self._screen.title(
                f"{number} of {len(SETUPS) + 1}: RuleMode {setup.mode}, TransparentProxy {setup.transparency}: {seen}"
            )
            self._with_gateway(setup)
        self._by_tls()
        self._nothing_left(before)
        self._summary()

    def _set_up(self) -> None:
        """The filter, its directory, and the MX."""
        shutil.copy(Path(__file__).with_name("sample-filter.sh"), self._directory)
        temporary = self._directory / "spool"
        temporary.mkdir()
        if _users_exist():
            shutil.chown(temporary, DAEMON_USER)
        output = self._directory / "mx.jsonl"
        with output.open("wb") as file:
            options = [word for way in WAYS for word in ("--listen", way.server)]
            if self._certificate is not None:
                options += ["--certificate", str(self._certificate)]
            self._lab.mx.start(*module_command("proxsmtp_tp.lab.mx"), "--name", "mx.example", *options, output=file)
        if not self._journal.wait(lambda journal: journal.ready, SECONDS):
            raise LabError(f"the MX does not start: {output.read_text()}")

    def _with_gateway(self, setup: Setup) -> None:
        """Start the daemon, install the rules, send the mails, remove the rules, end the daemon."""
        instance = self._announce(setup, {})
        page = self._screen
        with _with_log(instance), instance.running():
            for way in WAYS:
                replies = [self._mail(setup, way, mail, instance)[:3] for mail in MAILS]
                self._rows.append(
                    f"{setup.mode:<12}{way.name:<8}{'      '.join(replies)}      the {setup.whose}: {setup.seen(way)}"
                )
            page.line()
            page.quiet(f"# proxsmtp-tp remove-rules -f {instance.config.name}")

    def _by_tls(self) -> None:
        """One mail by TLS is judged, one passes. Without the library that makes certificates there is none."""
        page, number = self._screen, len(SETUPS) + 1
        if self._certificate is None:
            page.title(f"{number} of {number}: TLS: not shown, it needs {demo_tls.LIBRARY}")
            return
        page.title(f"{number} of {number}: TLS: {page.paint('strong', 'one mail is judged, one passes')}")
        setup = SETUPS[0]
        instance = self._announce(setup, demo_tls.directives(self._directory))
        with _with_log(instance), instance.running():
            ends = demo_tls.Ends(self._lab.sender, self._journal, instance, setup)
            for way, judged in zip(WAYS, (True, False), strict=True):
                self._interruption.raise_late()
                self._mails += 1
                demo_tls.show(page, ends, way, MAILS[0], judged=judged)
            page.line()
            page.quiet(f"# proxsmtp-tp remove-rules -f {instance.config.name}")

    def _announce(self, setup: Setup, more: dict[str, str]) -> Instance:
        """The configuration, shown, and the commands that come now."""
        directives = {
            "TransparentProxy": setup.transparency,
            "FilterCommand": f"sh {self._directory}/sample-filter.sh",
            "FilterDefault": "defer",
            "TempDirectory": f"{self._directory}/spool",
            **({"User": DAEMON_USER} if _users_exist() else {}),
            "RuleMode": setup.mode,
            "RuleInterface": "lan",
            **more,
        }
        instance = Instance(self._lab.gateway, self._directory, directives, setup.name)
        for line in "".join(f"{name}: {value}\n" for name, value in directives.items()).splitlines():
            self._screen.quiet(line)
        self._screen.quiet("")
        self._screen.quiet(f"# proxsmtp-tp serve -f {instance.config.name} &")
        self._screen.quiet(f"# proxsmtp-tp install-rules -f {instance.config.name}")
        return instance

    def _mail(self, setup: Setup, way: Way, mail: Mail, instance: Instance) -> str:
        """One mail through the gateway, shown and checked; the reply to it."""
        self._interruption.raise_late()
        page, logged = self._screen, len(instance.log)
        page.line()
        page.line(f"   {page.paint('strong', f'{way.name}, {mail.title}')}")
        greeting, reply, connected, verbs, arrived = self._send(way, mail)
        page.hop("sender", f"{way.client} calls {way.server} port 25: {printable(greeting)}")
        verdict = "pass" if arrived else "discard" if reply.startswith("2") else "reject"
        style = {"pass": "good", "discard": "mx", "reject": "bad"}[verdict]
        page.hop("gateway", f"the filter's verdict: {page.paint(style, verdict)}")
        page.more(self._log_line(way, instance, logged))
        page.hop("mx", f"{connected.peer}, the {setup.whose}, calls: {' '.join(verbs)}")
        if arrived:
            page.hop("mx", "has the message, byte for byte, below one new header:")
            page.more(page.paint("good", printable(arrived.content.partition("\r\n")[0])))
        else:
            page.hop("mx", "has not one byte of the message")
        whose = "the MX" if arrived else "the filter"
        page.hop("sender", f"{page.paint('good' if reply[0] == '2' else 'bad', printable(reply))}   (said {whose})")

        expect(connected.peer == setup.seen(way), f"the MX saw {connected.peer} instead of {setup.seen(way)}")
        expect(greeting == "220 mx.example ESMTP", f"the greeting was not the MX's own: {greeting}")
        expect(verdict == mail.verdict, f"the verdict was {verdict} instead of {mail.verdict}: {reply}")
        wanted = arrived.reply if arrived else mail.reply
        expect(reply == wanted, f"the sender got {reply!r} instead of {wanted!r}")
        if arrived:
            marked = f"{mail.mark(way)}\r\n".encode() + mail.octets
            expect(arrived.octets == marked, f"the message arrived changed: {arrived.octets!r}")
        return reply

    def _log_line(self, way: Way, instance: Instance, start: int) -> str:
        """Check the line of this mail in the daemon's log: client, server and status."""
        expect(instance.wait_log("status=", start, SECONDS), "the daemon's log says nothing of this mail")
        fields = dict(re.findall(r"(\w+)=(.*?)(?=, \w+=|$)", instance.log[start:], re.MULTILINE))
        for name, wanted in (("client", way.client), ("server", way.server)):
            expect(fields.get(name) == wanted, f"the log says {name}={fields.get(name)} instead of {wanted}")
        told = ", ".join(f"{name}={fields[name]}" for name in ("client", "server", "status"))
        return self._screen.paint("quiet", printable(f"log: {told}"))

    def _send(self, way: Way, mail: Mail) -> tuple[str, str, Connected, list[str], Arrived | None]:
        """Greeting, reply to the message, and what the MX saw meanwhile: its client, the verbs, the message."""
        self._mails += 1
        start = len(self._journal.events)
        with Client(self._lab.sender, way.server) as client:
            client.ehlo()
            greeting, reply = client.greeting, client.submit(SENDER, [RECIPIENT], mail.octets)
        ended = self._journal.wait(
            lambda journal: any(isinstance(event, Closed) for event in journal.events[start:]), SECONDS
        )
        events = self._journal.events[start:]
        connected = [event for event in events if isinstance(event, Connected)]
        arrived = [event for event in events if isinstance(event, Arrived)]
        verbs = [
            event.line.split()[0] if isinstance(event, Commanded) else "DATA"
            for event in events
            if isinstance(event, Commanded | Arrived)
        ]
        expect(ended and len(connected) == 1, f"the MX saw {len(connected)} connections instead of one: {reply}")
        expect(len(arrived) <= 1, f"the MX got {len(arrived)} messages instead of one")
        return greeting, reply, connected[0], verbs, arrived[0] if arrived else None

    def _send_directly(self) -> None:
        """Without rules the sender's mail reaches the MX as it is."""
        for way in WAYS:
            _, reply, connected, _, arrived = self._send(way, MAILS[0])
            expect(connected.peer == way.client, f"without rules the MX saw {connected.peer}")
            expect(arrived is not None and arrived.octets == MAILS[0].octets, f"without rules: {reply}")

    def _nothing_left(self, before: dict[str, list[str]]) -> None:
        """Check that the gateway is as before, and that mail goes directly again."""
        page = self._screen
        page.title("The rules are removed and the daemon has ended: what is left on the gateway?")
        left = changes(before, host_state(self._lab.gateway))
        for question, answer in before.items():
            different = any(change.startswith(f"{question}: ") for change in left)
            said = page.paint("bad", "changed  ") if different else page.paint("good", "as before")
            page.line(f"     {question.ljust(30)}{said}   {page.paint('quiet', f'{len(answer)} lines')}")
        expect(not left, "the gateway is not as it was:\n" + "\n".join(left))
        self._send_directly()
        page.line(f"     {'mail over IPv4 and IPv6'.ljust(30)}{page.paint('good', 'goes directly to the MX again')}")

    def _summary(self) -> None:
        page = self._screen
        page.title(f"{self._mails} mails, each as it must be")
        page.line(f"     {'mode':<12}{'mail':<8}good     GTUBE    discard  the MX saw")
        for row in self._rows:
            page.line(f"     {row}")


@contextmanager
def _with_log(instance: Instance) -> Iterator[None]:
    """Add the daemon's log to every error from inside."""
    try:
        yield
    except (LabError, OSError) as error:
        error.add_note(f"The daemon's log:\n{instance.log}")
        raise


def _users_exist() -> bool:
    """Whether processes here can have another user than root: in an ordinary user's namespace there is but one."""
    try:
        mapped = sum(int(line.split()[2]) for line in Path("/proc/self/uid_map").read_text("ascii").splitlines())
        return mapped > pwd.getpwnam(DAEMON_USER).pw_uid
    except KeyError:
        return False


def main() -> int:
    """Run the demo on standard output."""
    interruption = Interruption()
    try:
        with gateway_network() as lab, tempfile.TemporaryDirectory(prefix="demo.", dir=PRIVATE) as name:
            directory = Path(name)
            directory.chmod(0o755)
            Demo(lab, directory, Screen(sys.stdout), interruption).run()
    except (LabError, OSError, KeyboardInterrupt) as error:
        sys.stdout.flush()
        if interruption.came:
            print("\nThe demo was interrupted. Nothing of it is left.", file=sys.stderr)
            return 130
        told = "\n".join([str(error), *getattr(error, "__notes__", ())]).splitlines()
        print("\nThe demo failed:", "\n".join(map(printable, told)), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]  # a terminal without our box characters
    os.umask(0o022)  # the files are for whatever user the daemon and its filters run as
    sys.exit(main())
