"""What the master is given: objects and functions that `launch` makes, and that live as long as the daemon."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from proxsmtp_tp.config.reader import Configuration
from proxsmtp_tp.net.admission import Admission
from proxsmtp_tp.service.bypass import Bypass
from proxsmtp_tp.service.control import ControlSocket
from proxsmtp_tp.service.fail_open import FailOpen
from proxsmtp_tp.service.id_lease import IdLease
from proxsmtp_tp.service.in_force import InForce
from proxsmtp_tp.service.locks import Locks
from proxsmtp_tp.service.log_levels import LogLevels
from proxsmtp_tp.service.metrics_socket import MetricsSocket
from proxsmtp_tp.service.readiness import Notifier
from proxsmtp_tp.service.status import StatusSocket
from proxsmtp_tp.service.tls_keys import TlsKeys
from proxsmtp_tp.service.worker import ProxyFactory


@dataclass(frozen=True, slots=True)
class Environment:
    """The objects and functions that the master uses.

    `load` reads the configuration again. `on_ready` is called once, when all workers are ready; its PidFileError ends
    the daemon. `on_stop` is called once, when the listening sockets are closed. `close_in_worker` closes what the
    caller keeps open and a worker must not have.
    """

    admission: Admission
    locks: Locks
    fail_open: FailOpen
    make_proxy: ProxyFactory
    load: Callable[[], Configuration]
    in_force: InForce
    notifier: Notifier
    status: StatusSocket
    control: ControlSocket
    metrics: MetricsSocket
    levels: LogLevels
    id_lease: IdLease
    bypass: Bypass
    tls: TlsKeys
    on_ready: Callable[[], None]
    on_stop: Callable[[], None]
    close_in_worker: Callable[[], None]
