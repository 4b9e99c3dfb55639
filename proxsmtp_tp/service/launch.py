"""From a configuration to a running daemon, in the order that privileges require.

As root: pid file, listening sockets, the directory of the status socket, the limit of descriptors. Then privileges are
dropped, before any byte of a peer is read. Modules that are needed later are imported before, because afterwards their
files may not be readable.

With `detach` the calling process ends when the daemon is ready (exit code 0), or with the reason why it cannot start
(1).
"""

from __future__ import annotations

import importlib
import logging
import os
import resource
import signal
import sys
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from proxsmtp_tp.config.reader import Configuration, load_config
from proxsmtp_tp.config.settings import TransparentProxy
from proxsmtp_tp.net.admission import Admission
from proxsmtp_tp.net.listening import ListenError, adopt, close_listeners, renew_listeners, stop_listening
from proxsmtp_tp.service import logging as logs
from proxsmtp_tp.service import syslog
from proxsmtp_tp.service.bypass import BYPASS_FILE, Bypass
from proxsmtp_tp.service.control import ControlSocket
from proxsmtp_tp.service.detaching import Starter, detach, wait_for
from proxsmtp_tp.service.environment import Environment
from proxsmtp_tp.service.fail_open import FailOpen
from proxsmtp_tp.service.id_lease import FILE as ID_FILE
from proxsmtp_tp.service.id_lease import IdLease
from proxsmtp_tp.service.in_force import InForce
from proxsmtp_tp.service.key_files import KeyFileError
from proxsmtp_tp.service.lending import take
from proxsmtp_tp.service.locks import FILE as LOCKS_FILE
from proxsmtp_tp.service.locks import Locks
from proxsmtp_tp.service.log_levels import LogLevels
from proxsmtp_tp.service.master import Master, StartError
from proxsmtp_tp.service.metrics_socket import MetricsSocket
from proxsmtp_tp.service.pidfile import PidFile, PidFileError
from proxsmtp_tp.service.privileges import PrivilegeError, drop_privileges, groups_of, look_up_user
from proxsmtp_tp.service.readiness import Notifier
from proxsmtp_tp.service.reload import with_workers
from proxsmtp_tp.service.state_directory import prepare, pseudonym_keys, state_directory
from proxsmtp_tp.service.status import StatusSocket
from proxsmtp_tp.service.tls_keys import TlsKeys
from proxsmtp_tp.service.version import VERSION
from proxsmtp_tp.service.worker import GRACE, ProxyFactory, make_proxy
from proxsmtp_tp.telemetry.last_error import LastErrorHandler

if TYPE_CHECKING:
    import pwd
    from collections.abc import Iterator

    from proxsmtp_tp.config.settings import Settings
    from proxsmtp_tp.net.listening import Listeners

log = logging.getLogger(__name__)

_CANNOT_START = (KeyFileError, ListenError, PidFileError, PrivilegeError, StartError)
# Python imports these only when they are first used: names with non-ASCII letters are looked up by idna.
_PRELOADED = ("encodings.ascii", "encodings.latin_1", "encodings.idna", "uvloop")
_DESCRIPTORS_CONNECTION = 2  # the client's and the server's socket
_DESCRIPTORS_FILTER = 4  # its three standard streams and the spool
_DESCRIPTORS_OWN = 64  # standard streams, listeners, event loop, log, and files that are open for a moment
_REAP_SECONDS = 5  # for the master to reap the last worker and to clean up, on a busy host


@dataclass(frozen=True, slots=True)
class Launch:
    """How the daemon was started. `path` was read for `configuration`, and is read again by a reload.

    `pid_file` is that of the command line; `level` is that of -d; None: as LogLevel says.
    """

    configuration: Configuration
    path: str
    name: str
    pid_file: str | None = None
    level: int | None = None
    detach: bool = False
    make_proxy: ProxyFactory = make_proxy
    proxy_module: str = "proxsmtp_tp.net.proxy"
    """Makes the Proxy of a worker."""


def launch(wanted: Launch) -> int:
    """Run the daemon. Returns the exit code: of the daemon, or (with `detach`) of the process that started it."""
    _reset_signals()
    notifier = Notifier()
    wanted = replace(wanted, path=str(Path(wanted.path).absolute()))
    level = wanted.configuration.settings.log_level if wanted.level is None else wanted.level
    if not wanted.detach:
        logs.set_up(logs.StreamHandler(wanted.name), level)
        return _run(wanted, notifier, Starter(None))
    if problem := syslog.problem():
        print(f"{wanted.name}: warning: {problem}", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    out, into = os.pipe()
    if (child := os.fork()) != 0:
        os.close(into)
        return wait_for(child, out, wanted.name)
    code = 1
    try:
        os.close(out)
        detach()
        logs.set_up(syslog.SyslogHandler(wanted.name), level)
        code = _run(wanted, notifier, Starter(into))
    except BaseException:
        log.critical("internal error", exc_info=True)
    finally:
        logging.shutdown()
        os._exit(code)


def _reset_signals() -> None:
    """Make TERM and HUP work, even if the caller blocked or ignored them.

    An ignored HUP (nohup(1)) stays ignored until the master takes it for a reload: a terminal that is closed while the
    daemon starts does not end it. Python itself ignores SIGPIPE and SIGXFSZ.
    """
    for number in signal.valid_signals() - {signal.SIGHUP, signal.SIGPIPE, signal.SIGXFSZ}:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _run(wanted: Launch, notifier: Notifier, starter: Starter) -> int:
    try:
        with ExitStack() as cleanup:
            _prepare(wanted, notifier, starter, cleanup).run()
    except _CANNOT_START as error:
        starter.failed(str(error))
        return 1
    return 0


@dataclass(frozen=True, slots=True)
class _Opened:
    """What the daemon has opened: files and sockets of the master, which workers must not have."""

    pid_file: PidFile
    status: StatusSocket
    control: ControlSocket
    metrics: MetricsSocket
    notifier: Notifier
    starter: Starter
    tls: TlsKeys

    def ready(self) -> None:
        """All workers are ready."""
        self.pid_file.write()
        self.starter.ready()

    def close_in_worker(self) -> None:
        """Close all of it in a process that was just forked."""
        for opened in (self.notifier, self.status, self.control, self.metrics, self.pid_file, self.starter):
            opened.close()
        self.tls.close_in_worker()


def _prepare(wanted: Launch, notifier: Notifier, starter: Starter, cleanup: ExitStack) -> Master:
    """Everything up to the first fork. `cleanup` is run at the end, in reverse order."""
    settings = with_workers(wanted.configuration.settings)
    for warning in wanted.configuration.warnings:
        log.warning("%s", warning)
    logs.use(settings, None)
    if not settings.tls:
        log.info("STARTTLS is removed, and mail is in clear: there is no Tls line")
    log.debug("starting up (%s)...", VERSION)
    pid_file = PidFile(_pid_path(settings, wanted))
    cleanup.callback(pid_file.remove)
    listeners = cleanup.enter_context(_listening(settings, notifier))
    for endpoint in listeners:
        log.debug("created socket: %s", endpoint)
    _wait_for_earlier_daemon(pid_file, settings)
    user = _other_user(settings)
    status = StatusSocket(settings.instance, user)
    cleanup.callback(status.close, remove=True)
    kept = state_directory(settings.instance)
    if user is not None:
        _prepare_state(kept, user)
    lent = take(notifier)
    tls = TlsKeys(settings, kept, groups_of(settings), lent)
    cleanup.callback(tls.close)
    for key in lent.values():
        os.close(key)
    _drop_rights(wanted, settings, user, pid_file)
    status.open()
    control = ControlSocket(status.control())
    cleanup.callback(control.close, remove=True)
    metrics = MetricsSocket(status.metrics())
    cleanup.callback(metrics.close, remove=True)
    _check_temp_directory(settings)
    opened = _Opened(pid_file, status, control, metrics, notifier, starter, tls)
    return Master(settings, listeners, _environment(wanted, settings, opened, kept, cleanup))


def _drop_rights(wanted: Launch, settings: Settings, user: pwd.struct_passwd | None, pid_file: PidFile) -> None:
    """Do what needs root or readable files, then become the daemon's user."""
    _raise_descriptor_limit(settings)
    for module in (*_PRELOADED, wanted.proxy_module):
        importlib.import_module(module)
    if user is not None and not pid_file.user_may_write(user.pw_uid, user.pw_gid):
        pid_file.write()
    drop_privileges(settings.user, settings.transparent_proxy is TransparentProxy.FULL)
    logs.use(settings, pseudonym_keys(settings.instance))  # not before: the key file must be the user's


def _environment(wanted: Launch, settings: Settings, opened: _Opened, kept: Path, cleanup: ExitStack) -> Environment:
    """What the master is given. `kept` is the state directory."""

    def load() -> Configuration:
        return load_config(wanted.path)

    admission = Admission(settings.max_connections, 0, settings.client_table_size)
    locks = Locks(settings, admission.clients, kept / LOCKS_FILE, admission.counters.event_lost_in_master)
    cleanup.callback(locks.close)
    id_lease = IdLease(admission.trace_ids, kept / ID_FILE)
    cleanup.callback(id_lease.close)
    logging.getLogger().addHandler(LastErrorHandler(admission.last_error))
    return Environment(
        admission=admission,
        locks=locks,
        fail_open=FailOpen(settings, opened.status.file("heartbeat")),
        make_proxy=wanted.make_proxy,
        load=load,
        in_force=InForce(wanted.path, load, wanted.configuration.settings),
        notifier=opened.notifier,
        status=opened.status,
        control=opened.control,
        metrics=opened.metrics,
        levels=LogLevels(admission.switches, wanted.level, settings.log_level),
        id_lease=id_lease,
        bypass=Bypass(admission.switches, admission.counters, kept / BYPASS_FILE),
        tls=opened.tls,
        on_ready=opened.ready,
        on_stop=opened.pid_file.stopping,
        close_in_worker=opened.close_in_worker,
    )


@contextmanager
def _listening(settings: Settings, notifier: Notifier) -> Iterator[Listeners]:
    """The listening sockets, with those that the service manager has kept over the restart, and the clients in their
    queues.

    If the daemon cannot start, the sockets stop listening, so clients are refused and do not wait for a daemon that
    does not come. The manager sees this, and closes its copies (sd_pid_notify_with_fds(3), FDPOLL). After a crash the
    next daemon gets them.
    """
    kept = adopt(notifier.stored, settings)
    listeners = kept
    try:
        listeners = renew_listeners(settings, kept)
        yield listeners
    except _CANNOT_START:
        stop_listening(listeners.values())
        close_listeners(listeners)
        raise
    close_listeners(listeners)


def _prepare_state(directory: Path, user: pwd.struct_passwd) -> None:
    try:
        prepare(directory, user)
    except OSError as error:
        log.info("locks of clients are not kept over a restart: %s: %s", directory, error.strerror or error)


def _pid_path(settings: Settings, wanted: Launch) -> str | None:
    if settings.pid_file and wanted.pid_file:
        log.warning("ignoring pid file specified on the command line: PidFile overrides it")
    return settings.pid_file or wanted.pid_file


def _wait_for_earlier_daemon(pid_file: PidFile, settings: Settings) -> None:
    """Wait for an earlier daemon that is stopping (`kill $(cat PIDFILE); proxsmtpd ...`).

    It has closed its listening sockets, and ours are already open: clients that connect now wait for a greeting, and
    are not refused.
    """
    if pid_file.holder:
        seconds = settings.drain_time_out + GRACE + _REAP_SECONDS
        log.log(
            logs.NOTICE, "waiting up to %d s until daemon %s has finished its transactions", seconds, pid_file.holder
        )
        pid_file.wait(seconds)


def _other_user(settings: Settings) -> pwd.struct_passwd | None:
    """The user that the daemon becomes; None: it keeps its user."""
    if settings.user is None or os.geteuid() != 0:
        return None
    account = look_up_user(settings.user)
    return account if account.pw_uid != 0 else None


def _raise_descriptor_limit(settings: Settings) -> None:
    """Raise the limit of open files as far as we may. The usual soft limit of 1024 would be 500 connections; it is so
    low because of select(2), which is not used here.
    """
    needed = (
        settings.max_connections * _DESCRIPTORS_CONNECTION
        + settings.filter_processes * _DESCRIPTORS_FILTER
        + _DESCRIPTORS_OWN
    )
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for limit in dict.fromkeys((max(hard, needed), hard)):  # above `hard` it needs CAP_SYS_RESOURCE
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
            break
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < needed:
        log.warning(
            "MaxConnections %d may need %d open files, and %d are allowed: set LimitNOFILE=%d, or lower it",
            settings.max_connections,
            needed,
            soft,
            needed,
        )


def _check_temp_directory(settings: Settings) -> None:
    """Make TempDirectory if it is missing; report an unusable one at the start, not with the first large message.

    Call it as the daemon's user.
    """
    folder = settings.temp_directory
    if settings.filter_command is None and not settings.filter:
        return
    with suppress(OSError):  # it exists, or cannot be made: then the line below and `doctor` say what to do
        Path(folder).mkdir(mode=0o700)
        log.info("made TempDirectory %s", folder)
    if not os.access(folder, os.W_OK | os.X_OK):
        log.error("TempDirectory %s: uid %d cannot write there: large mail will get 451", folder, os.geteuid())
