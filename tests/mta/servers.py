"""Postfix, Exim, sendmail and OpenSMTPD beside each other, each with its own root, queue and configuration.

The last three run in a chroot of Debian's programs (`.ci/mta-root` makes it), since as packages they exclude one
another; Postfix is the system's, with a configuration of its own. All take mail from everybody, for everybody, ask no
name server, and relay what they took by their routes, the rest to one sink (`sink.Sink`) on their host. Everything that
Debian leaves at its default is left so, where it has to do with the reading of an envelope. To be run under
proxsmtp_tp.lab.isolate: the mounts stay in its mount namespace.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from proxsmtp_tp.lab.network import Host
from tests.real.postfix import MASTER

NAME = "mx.example"
"""What all of them call themselves, and append to an address without a domain."""

START = 90
"""Seconds that a server may take until it greets."""

USERS = """\
root:x:0:0::/root:/bin/sh
daemon:x:1:1::/:/bin/false
mail:x:8:8::/var/mail:/bin/false
nobody:x:65534:65534::/:/bin/false
Debian-exim:x:301:301::/var/spool/exim4:/bin/false
opensmtpd:x:302:302::/var/lib/opensmtpd/empty:/bin/false
opensmtpq:x:303:303::/:/bin/false
smmta:x:304:304::/var/lib/sendmail:/bin/false
smmsp:x:305:305::/var/lib/sendmail:/bin/false
"""

EXIM = """\
primary_hostname = {place.name}
local_interfaces = {place.address}
daemon_smtp_ports = {place.port}
log_file_path = /var/log/exim4/%slog
acl_smtp_rcpt = accept
acl_smtp_data = accept
sender_unqualified_hosts = *
recipient_unqualified_hosts = *
allow_domain_literals = true
smtp_accept_queue_per_connection = 0
smtp_accept_max = 0
host_lookup =
rfc1413_hosts =
tls_advertise_hosts =
begin routers
{routes}
everything:
  driver = manualroute
  domains = *
  transport = sink
  route_data = 127.0.0.1
  self = send
begin transports
sink:
  driver = smtp
  port = {place.sink}
  allow_localhost
out:
  driver = smtp
"""
EXIM_ROUTE = """\
{label}:
  driver = manualroute
  domains = {domain}
  transport = out
  route_data = {address}
"""

OPENSMTPD = """\
listen on {place.address} port {place.port} hostname {place.name}
action "sink" relay host "smtp://127.0.0.1:{place.sink}"
{routes}
match from any for any action "sink"
"""
OPENSMTPD_ROUTE = """\
action "{domain}" relay host "smtp://{address}"
match from any for domain "{domain}" action "{domain}"
"""

SENDMAIL = """\
include(`/usr/share/sendmail/cf/m4/cf.m4')
OSTYPE(`debian')
define(`confDOMAIN_NAME', `{place.name}')
define(`confDELIVERY_MODE', `background')
define(`confTO_IDENT', `0')
define(`confDONT_PROBE_INTERFACES', `True')
define(`confMAX_DAEMON_CHILDREN', `0')
define(`confQUEUE_LA', `1000')
define(`confREFUSE_LA', `1000')
define(`confBAD_RCPT_THROTTLE', `0')
undefine(`confHOST_STATUS_DIRECTORY')
FEATURE(`accept_unresolvable_domains')
FEATURE(`accept_unqualified_senders')
FEATURE(`promiscuous_relay')
FEATURE(`nocanonify')
FEATURE(`no_default_msa')
FEATURE(`mailertable', `text -k0 -v1 /etc/mail/mailertable')
DAEMON_OPTIONS(`Name=MTA, Addr={place.address}, Port={place.port}')
define(`RELAY_MAILER_ARGS', `TCP $h {place.sink}')
define(`SMART_HOST', `relay:[127.0.0.1]')
MAILER(`smtp')
"""

POSTFIX = """\
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
maillog_file = {folder}/mail.log
maillog_file_prefixes = {folder}
myhostname = {place.name}
mydestination =
alias_maps =
inet_protocols = ipv4
mynetworks = 0.0.0.0/0
smtpd_peername_lookup = no
smtp_dns_support_level = disabled
relayhost = [127.0.0.1]:{place.sink}
transport_maps = {routes}
"""


class MtaError(Exception):
    """A server that does not start; its last words."""


@dataclass(frozen=True)
class Place:
    """Where a server stands, and where what it took goes: by `routes` (domain to IPv4 address), else to the sink."""

    port: int
    sink: int
    """The sink's port on 127.0.0.1."""
    address: str = "127.0.0.1"
    host: Host | None = None
    """A host of the lab, or the namespace of the tests."""
    name: str = NAME
    """Two servers of one name take each other's mail for a loop."""
    routes: Mapping[str, str] = field(default_factory=dict)

    def command(self, *arguments: str | Path) -> list[str]:
        """What to execute so that `arguments` run there."""
        return self.host.command(*arguments) if self.host else list(map(str, arguments))

    def connect(self, seconds: float) -> socket.socket:
        """Connect to the server. Raises OSError."""
        if self.host:
            return self.host.connect(self.address, self.port, seconds)
        return socket.create_connection((self.address, self.port), seconds)

    def render(self, template: str) -> str:
        """The template for each route."""
        return "".join(
            template.format(domain=domain, label=domain.replace(".", "_"), address=address)
            for domain, address in self.routes.items()
        )


@dataclass
class Mta:
    """One running server. `log` reads what it wrote."""

    name: str
    place: Place
    process: subprocess.Popen[bytes]
    log: Callable[[], str]
    queue: Path
    """Where its messages are, in files and folders, until they are delivered."""
    root: Path | None = None
    """Its chroot, where it has one."""
    stop_command: tuple[str, ...] = ()
    """What ends it, where a signal to its first process does not."""

    def wait_ready(self) -> None:
        """Until it greets. MtaError, with its log, if it does not."""
        end = time.monotonic() + START
        while self.process.poll() is None and time.monotonic() < end:
            with suppress(OSError), self.place.connect(5) as link:
                if link.recv(4) == b"220 ":
                    return
            time.sleep(0.1)
        raise MtaError(f"{self.name} does not greet:\n{self.log()[-3000:]}")

    def queued(self) -> list[Path]:
        """The files of messages that it has not delivered yet."""
        files = (path for path in self.queue.rglob("*") if path.is_file())
        return list(files)

    def stop(self) -> None:
        """End it, so that its ports are free, and take its chroot away."""
        if self.stop_command:
            subprocess.run(self.stop_command, check=False, capture_output=True)
        self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        self.process.kill()
        self.process.wait()
        end = time.monotonic() + START
        while self._accepts():  # the next one must not be taken for this one
            if time.monotonic() > end:
                raise MtaError(f"{self.name} does not end")
            time.sleep(0.1)
        if self.root is not None:
            subprocess.run(["umount", "--recursive", "--lazy", self.root], check=True)

    def _accepts(self) -> bool:
        try:
            self.place.connect(1).close()
        except OSError:
            return False
        return True


def start_exim(folder: Path, place: Place) -> Mta:
    """Exim, with the settings of its specification's defaults, not of Debian's questions."""
    root = _chroot(folder, place.name)
    (root / "etc/exim4").mkdir(exist_ok=True)
    (root / "etc/exim4/exim4.conf").write_text(EXIM.format(place=place, routes=place.render(EXIM_ROUTE)))
    for part in ("spool/exim4", "log/exim4"):
        _own(root / "var" / part, 301)
    (root / "run/exim4").mkdir()
    return _start(
        "exim", place, root, ["/usr/sbin/exim4", "-bdf", "-q1m"], "var/log/exim4/mainlog", "var/spool/exim4/input"
    )


def start_opensmtpd(folder: Path, place: Place) -> Mta:
    """OpenSMTPD."""
    root = _chroot(folder, place.name)
    (root / "etc/smtpd.conf").write_text(OPENSMTPD.format(place=place, routes=place.render(OPENSMTPD_ROUTE)))
    (root / "etc/mailname").write_text(f"{place.name}\n")
    (root / "var/lib/opensmtpd/empty").mkdir(parents=True, exist_ok=True)
    (root / "var/spool/smtpd").mkdir(mode=0o711, parents=True)
    return _start("opensmtpd", place, root, ["/usr/sbin/smtpd", "-d"], "output", "var/spool/smtpd/queue")


def start_sendmail(folder: Path, place: Place, milter: str = "") -> Mta:
    """Sendmail; its configuration is made with m4, as an administrator does. `milter`: a socket in its chroot."""
    root = _chroot(folder, place.name)
    (root / "etc/mail").mkdir(exist_ok=True)
    for part in ("var/spool/mqueue", "var/lib/sendmail", "run/sendmail/mta"):
        _own(root / part, 0)
    macros = SENDMAIL.format(place=place)
    if milter:
        macros += f"INPUT_MAIL_FILTER(`milter', `S=unix:{milter}, F=T, T=S:10s;R:60s;E:60s')\n"
    m4 = ["chroot", str(root), "/usr/bin/m4", "-D_CF_DIR_=/usr/share/sendmail/cf/"]
    made = subprocess.run(m4, input=macros.encode(), check=True, capture_output=True)
    (root / "etc/mail/sendmail.cf").write_bytes(made.stdout)
    (root / "etc/mail/mailertable").write_text(place.render("{domain} esmtp:[{address}]\n"))
    for file in ("local-host-names", "aliases"):
        (root / "etc/mail" / file).touch()
    return _start(
        "sendmail", place, root, ["/usr/libexec/sendmail/sendmail", "-bD", "-q1m"], "output", "var/spool/mqueue"
    )


def start_postfix(folder: Path, place: Place) -> Mta:
    """The system's Postfix."""
    for part in ("conf", "queue", "data"):
        (folder / part).mkdir()
    owner = pwd.getpwnam("postfix")
    os.chown(folder / "data", owner.pw_uid, owner.pw_gid)
    entries = place.render("{{ {domain} = smtp:[{address}] }} ")
    routes = f"inline:{{ {entries} }}" if entries else ""
    (folder / "conf/main.cf").write_text(POSTFIX.format(folder=folder, place=place, routes=routes))
    (folder / "conf/master.cf").write_text(MASTER.replace("smtp      inet", f"{place.address}:{place.port} inet"))
    (folder / "conf/dynamicmaps.cf").touch()
    command = ("postfix", "-c", str(folder / "conf"))
    process = subprocess.Popen(place.command(*command, "start-fg"), stderr=subprocess.DEVNULL)
    queue = folder / "queue/active"
    return Mta("postfix", place, process, _reader(folder / "mail.log"), queue, stop_command=(*command, "stop"))


START_BY_NAME = {
    "postfix": start_postfix,
    "exim": start_exim,
    "sendmail": start_sendmail,
    "opensmtpd": start_opensmtpd,
}
"""Each takes an empty folder that everybody may enter, and a place."""


def _chroot(folder: Path, name: str = NAME) -> Path:
    """Make a root with Debian's programs: read-only mounts of the shared ones, and an /etc and /var of its own.

    It is one tree of mounts, so that it goes as a whole (`Mta.stop`): no file of the host may be removed through it.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    made = cache / "proxsmtp-tp/mta-root"
    if not (made / "made-of").exists():
        raise MtaError(f"there is no {made}: run .ci/mta-root (make test-mta does)")
    root = folder / "root"
    root.mkdir()
    _mount("-t", "tmpfs", "-o", "mode=755", "mta", root)
    for part in ("bin", "lib", "lib64", "usr"):
        (root / part).mkdir(parents=True)
        _mount("--bind", "-o", "ro", made / part, root / part)
    for part in ("etc", "var"):
        shutil.copytree(made / part, root / part, symlinks=True)
    for part in ("dev", "run", "tmp", "root"):
        (root / part).mkdir()
    for device in ("null", "zero", "random", "urandom"):
        (root / "dev" / device).touch()
        _mount("--bind", Path("/dev", device), root / "dev" / device)
    (root / "tmp").chmod(0o1777)
    (root / "etc/passwd").write_text(USERS)
    groups = [line.split(":") for line in USERS.splitlines()]
    (root / "etc/group").write_text("".join(f"{user[0]}:x:{user[3]}:\n" for user in groups))
    (root / "etc/hosts").write_text(f"127.0.0.1 localhost {name}\n")
    (root / "etc/nsswitch.conf").write_text("passwd: files\ngroup: files\nhosts: files\nservices: files\n")
    return root


def _mount(*arguments: str | Path) -> None:
    subprocess.run(["mount", *arguments], check=True)


def _own(path: Path, user: int) -> None:
    path.mkdir(parents=True, exist_ok=True)
    os.chown(path, user, user)


def _start(name: str, place: Place, root: Path, command: list[str], log: str, queue: str) -> Mta:
    with (root / "output").open("wb") as output:
        process = subprocess.Popen(
            place.command("chroot", root, *command), stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd="/"
        )
    return Mta(name, place, process, _reader(root / "output", root / log), root / queue, root)


def _reader(*paths: Path) -> Callable[[], str]:
    return lambda: "\n".join(path.read_text(errors="backslashreplace") for path in paths if path.exists())
