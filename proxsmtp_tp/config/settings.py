"""What the configuration file says, as values. `Settings()` alone is proxsmtpd's default of every directive.

Guarantees: frozen; one field for each row of `directives.DIRECTIVES` (a test compares them). Times: seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Network, IPv6Network, ip_address

from proxsmtp_tp.config.addresses import Address, InetAddress, parse_address

Network = IPv4Network | IPv6Network

LISTEN_PORT = 10025
SMTP_PORT = 25


class FilterType(Enum):
    """How a message is handed to FilterCommand."""

    PIPE = "pipe"
    FILE = "file"
    REJECT = "reject"
    SMTP = "smtp"


class TransparentProxy(Enum):
    """OFF: to OutAddress. CLIENT: to the original destination. FULL: the same, from the client's address."""

    OFF = "off"
    CLIENT = "client"
    FULL = "full"


class ConnectFailure(Enum):
    """What a client gets that nothing was said to yet, when its server can not be reached or does not greet."""

    REFUSE = "refuse"
    RESET = "reset"
    REPLY = "reply"


class BareNewline(Enum):
    """What becomes of a bare CR or LF in a message."""

    NORMALIZE = "normalize"
    REJECT = "reject"


class RuleMethod(Enum):
    """Which firewall carries the rules."""

    NFTABLES = "nftables"
    IPTABLES = "iptables"


class RuleMode(Enum):
    """How connections are turned to us."""

    REDIRECT = "redirect"
    TPROXY = "tproxy"


class RuleExisting(Enum):
    """What happens to connections that began unfiltered: RESET ends them, FINISH lets them go on as they began."""

    RESET = "reset"
    FINISH = "finish"


class RuleForward(Enum):
    """Where interception opens what the host's forwarding policy closes: REFUSE to install, or OVERRULE the policy."""

    REFUSE = "refuse"
    OVERRULE = "overrule"


class RuleFail(Enum):
    """What happens to mail while the daemon is down: CLOSED refuses it, OPEN lets it pass unfiltered."""

    CLOSED = "closed"
    OPEN = "open"


@dataclass(frozen=True, slots=True)
class Settings:
    """Every directive, in the order of the table. None: not given."""

    filter_command: str | None = None
    filter_timeout: float = 30
    filter_reject: str = "530 Email Rejected"
    filter_type: FilterType = FilterType.PIPE
    filter_processes: int = 64
    """For the whole instance."""
    header: str | None = None
    """As written: % and backslash escapes are expanded for each message."""
    keep_alives: float = 60
    """0: none."""
    listen: tuple[Address, ...] = (InetAddress("", LISTEN_PORT),)
    max_connections: int = 64
    """For the whole instance."""
    clients: tuple[Network, ...] = ()
    """Who may connect; empty: everybody."""
    out_address: Address | None = None
    """With an empty host: loopback mode."""
    skip_authenticated: bool = False
    temp_directory: str = "/tmp"  # noqa: S108  (1.10's default; systemd gives the unit a private one)
    time_out: float | None = None
    """None: for each phase what RFC 5321 section 4.5.3.2 says (`net.deadlines`)."""
    connect_time_out: float = 30
    message_time_out: float = 3600
    message_size_limit: int = 0
    """Octets; 0: none."""
    spool_limit: int = 0
    """Octets; 0: none."""
    min_data_rate: int = 500
    """Octets a second; 0: none."""
    session_time_out: float = 14400
    drain_time_out: float = 30
    transparent_proxy: TransparentProxy = TransparentProxy.OFF
    connect_failure: ConnectFailure | None = None
    """None: see `reset_unreachable`."""
    bare_newline: BareNewline = BareNewline.NORMALIZE
    user: str | None = None
    auth_without_tls: bool = False
    x_client: bool = False
    x_client_required: bool = True
    x_forward_clients: tuple[Network, ...] = ()
    """Empty: nobody with `x_client`, otherwise everybody."""
    pid_file: str | None = None
    workers: int = 0
    """0: the number of cores. Never 0 in a worker: the master puts the number there."""
    instance: str = "proxsmtp-tp"
    rule_method: RuleMethod = RuleMethod.NFTABLES
    rule_mode: RuleMode = RuleMode.REDIRECT
    rule_interface: tuple[str, ...] = ()
    rule_source: tuple[Network, ...] = ()
    rule_except_source: tuple[Network, ...] = ()
    rule_except_destination: tuple[Network, ...] = ()
    rule_port: tuple[int, ...] = (SMTP_PORT,)
    rule_listen_port: int | None = None
    """None: see `intercept_port`."""
    rule_fail: RuleFail = RuleFail.CLOSED
    rule_existing: RuleExisting = RuleExisting.RESET
    rule_forward: RuleForward = RuleForward.REFUSE
    rule_local: bool = False

    @property
    def transparent(self) -> bool:
        """The original destination decides where mail goes, not OutAddress."""
        return self.transparent_proxy is not TransparentProxy.OFF

    @property
    def reset_unreachable(self) -> bool:
        """A client whose server can not be reached is reset: by default where it dialled that server, and not us."""
        if self.connect_failure is None:
            return self.transparent
        return self.connect_failure is not ConnectFailure.REPLY

    @property
    def refuse_unreachable(self) -> bool:
        """The rules refuse connections to a server that could not be reached: by default in the transparent modes."""
        return self.transparent and self.connect_failure in {None, ConnectFailure.REFUSE}

    @property
    def loopback(self) -> bool:
        """OutAddress is only a port: connect back to the client's own address on it."""
        return not self.transparent and isinstance(self.out_address, InetAddress) and self.out_address.port_only

    @property
    def open_loopback(self) -> bool:
        """Loopback mode for whoever reaches the listener, and that is not only this machine."""
        reachable = any(isinstance(address, InetAddress) and not _only_here(address.host) for address in self.listen)
        return self.loopback and not self.clients and reachable

    @property
    def filter_address(self) -> Address:
        """FilterType smtp: where the scanner listens; a port alone is on this machine.

        Raises ValueError if FilterCommand is no address.
        """
        address = parse_address(self.filter_command or "", SMTP_PORT)
        if isinstance(address, InetAddress) and address.port_only:
            return InetAddress("127.0.0.1", address.port)
        return address

    @property
    def intercept_port(self) -> int | None:
        """The port that rules turn connections to: RuleListenPort, or Listen's first; None with only unix sockets."""
        ports = [address.port for address in self.listen if isinstance(address, InetAddress)]
        return self.rule_listen_port or next(iter(ports), None)


def _only_here(host: str) -> bool:
    """Whether only this machine reaches a listener there. A name may be anything, but for the one that is not."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
