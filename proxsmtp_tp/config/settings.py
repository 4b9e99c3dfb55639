"""The values of the configuration file. `Settings()` without arguments has the default of every directive.

Guarantees: frozen; one field for each row of `directives.table` (a test compares them). Times are in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Network, IPv6Network, ip_address

from proxsmtp_tp.config.addresses import Address, InetAddress, parse_address
from proxsmtp_tp.config.filter_lines import FilterLine
from proxsmtp_tp.config.rates import AtOnce, ClientLimit, LockDuration, LockReply, RateLimit
from proxsmtp_tp.config.tls_files import CertificateLine, KeyPair
from proxsmtp_tp.config.tls_lines import TlsAction, TlsLevel, TlsRule, UpstreamRule

Network = IPv4Network | IPv6Network

LISTEN_PORT = 10025
SMTP_PORT = 25

WORKERS_MAX = 255
"""A trace id has 9 bits for the worker (`telemetry.trace_id`), and in a reload there are twice as many workers."""


class FilterType(Enum):
    """How a message is handed to FilterCommand."""

    PIPE = "pipe"
    FILE = "file"
    REJECT = "reject"
    SMTP = "smtp"


class FilterMode(Enum):
    """ENFORCE the verdict of the filter, or MONITOR it: log it and pass the message as it came."""

    ENFORCE = "enforce"
    MONITOR = "monitor"


class FilterDefault(Enum):
    """What the client gets if FilterCommand refuses a message without an SMTP code."""

    REJECT = "reject"
    DEFER = "defer"


class TransparentProxy(Enum):
    """Where mail goes. OFF: OutAddress. CLIENT: the original destination. FULL: the same, from the client's address."""

    OFF = "off"
    CLIENT = "client"
    FULL = "full"


class ConnectFailure(Enum):
    """What a client gets if its server cannot be reached or does not greet."""

    REFUSE = "refuse"
    RESET = "reset"
    REPLY = "reply"


class LogFormat(Enum):
    """The form of log lines."""

    PROXSMTPD = "proxsmtpd"
    POSTFIX = "postfix"
    JSON = "json"


class LogAddresses(Enum):
    """How mail addresses are shown in log lines and events."""

    FULL = "full"
    DOMAIN = "domain"
    KEYED = "keyed"
    NONE = "none"


class BareNewline(Enum):
    """What happens to a bare CR or LF in a message."""

    NORMALIZE = "normalize"
    REJECT = "reject"


class TlsDane(Enum):
    """What `Tls: terminate` does with a server that has TLSA records."""

    PASS = "pass"  # noqa: S105  (no password)
    REFUSE = "refuse"
    TERMINATE = "terminate"


class TlsRejected(Enum):
    """What `Tls: terminate` does with a client that has rejected the gateway's certificate for this server."""

    FAIL = "fail"
    PASS = "pass"  # noqa: S105  (no password)


class RuleMethod(Enum):
    """Which firewall gets the rules."""

    NFTABLES = "nftables"
    IPTABLES = "iptables"


class RuleMode(Enum):
    """How the rules intercept connections."""

    REDIRECT = "redirect"
    TPROXY = "tproxy"


class RuleExisting(Enum):
    """What happens to connections that began unfiltered: RESET resets them, FINISH lets them continue."""

    RESET = "reset"
    FINISH = "finish"


class RuleForward(Enum):
    """If interception would allow what the forwarding policy of the host blocks: REFUSE to install, or OVERRULE it."""

    REFUSE = "refuse"
    OVERRULE = "overrule"


class RuleFail(Enum):
    """What happens to mail while the daemon is down: CLOSED refuses it, OPEN lets it pass unfiltered."""

    CLOSED = "closed"
    OPEN = "open"


LOCK_DURATION = LockDuration()


@dataclass(frozen=True, slots=True)
class Settings:
    """Every directive, in the order of the table. None: not given."""

    filter: tuple[FilterLine, ...] = ()
    """The chain, in order."""
    filter_command: str | None = None
    filter_timeout: float = 30
    filter_reject: str = "530 Email Rejected"
    filter_type: FilterType = FilterType.PIPE
    filter_default: FilterDefault = FilterDefault.REJECT
    filter_mode: FilterMode = FilterMode.ENFORCE
    filter_processes: int = 64
    """For the whole instance."""
    filter_wait: float | None = None
    """None: as long as FilterTimeout."""
    answer_within: float | None = None
    """None: `net.deadlines.ANSWER_WITHIN`, or FilterTimeout if that is longer. 0: no limit."""
    hostname: str | None = None
    """None: the name of this host."""
    milter_macro: tuple[tuple[str, str], ...] = ()
    """Name, as milters write it (`{daemon_name}`), and value, with placeholders."""
    quarantine_directory: str | None = None
    quarantine_reply: str = "250 2.6.0 Held for review"
    quarantine_max: int = 5_000_000_000
    """Octets."""
    quarantine_days: int = 30
    keep_refused: tuple[str, ...] = ()
    """Names of filters."""
    header: str | None = None
    """As written: % and backslash escapes are expanded for each message."""
    keep_alives: float = 60
    """0: none."""
    listen: tuple[Address, ...] = (InetAddress("", LISTEN_PORT),)
    max_connections: int = 64
    """For the whole instance."""
    clients: tuple[Network, ...] = ()
    """Clients that may connect; empty: everybody."""
    client_ipv4_prefix: int = 32
    client_ipv6_prefix: int = 64
    client_connections: AtOnce | None = None
    client_connection_rate: RateLimit | None = None
    client_servers: RateLimit | None = None
    client_messages: RateLimit | None = None
    client_recipients: RateLimit | None = None
    client_rejects: RateLimit | None = None
    client_spam: RateLimit | None = None
    client_except: tuple[Network, ...] = ()
    client_table_size: int = 65536
    lock_on: tuple[ClientLimit, ...] = ()
    lock_duration: LockDuration = LOCK_DURATION
    lock_reply: LockReply = LockReply.TRY_AGAIN
    lock_command: str | None = None
    out_address: Address | None = None
    """With an empty host: loopback mode."""
    skip_authenticated: bool = False
    temp_directory: str = "/tmp"  # noqa: S108  (1.10's default; systemd gives the unit a private one)
    time_out: float | None = None
    """None: the limit of RFC 5321 section 4.5.3.2 for each phase (`net.deadlines`)."""
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
    tls: tuple[TlsRule, ...] = ()
    """Empty: STARTTLS is removed, as in 1.10."""
    upstream_tls: tuple[UpstreamRule, ...] = ()
    upstream_ca_file: str | None = None
    """None: the CAs of the system."""
    tls_certificate: tuple[CertificateLine, ...] = ()
    tls_ca: KeyPair | None = None
    """None: one of our own, in the state directory."""
    tls_untrusted_ca: KeyPair | None = None
    """None: one of our own, in the state directory."""
    tls_dane: TlsDane = TlsDane.PASS
    tls_rejected: TlsRejected = TlsRejected.FAIL
    tls_rejected_time_out: float = 14400
    tls_wrapped: tuple[int, ...] = ()
    tls_handshakes: int = 64
    """In one worker; 0: any number."""
    tls_client_handshakes: int = 16
    """Of one client in one worker; 0: any number."""
    tls_handshake_time_out: float = 60
    tls_pass_idle_time_out: float = 660
    tls_pass_time_out: float = 14400
    pid_file: str | None = None
    log_level: int = 3
    """As -d, which overrides it."""
    log_format: LogFormat = LogFormat.PROXSMTPD
    log_addresses: LogAddresses = LogAddresses.FULL
    event_log: str = "off"
    """off, journal, a path, or unix: and a path."""
    workers: int = 0
    """0: one for each core, at most WORKERS_MAX. In a worker it is the real number, which the master has set."""
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
    def filtered(self) -> bool:
        """Whether filters judge messages: a chain, or FilterCommand. FilterType reject judges none."""
        return bool(self.filter) or (self.filter_command is not None and self.filter_type is not FilterType.REJECT)

    @property
    def terminates_tls(self) -> bool:
        """Whether there is TLS with clients: a Tls line says terminate."""
        return any(rule.action is TlsAction.TERMINATE for rule in self.tls)

    @property
    def asks_for_names(self) -> bool:
        """Whether TLSA records are asked for the server name in each client's hello (TlsDane)."""
        return self.terminates_tls and self.tls_dane is not TlsDane.TERMINATE

    @property
    def needs_resolver(self) -> bool:
        """Whether TLSA records are asked for at all: by TlsDane, or by the level dane of UpstreamTls."""
        level_dane = any(rule.level is TlsLevel.DANE for rule in self.upstream_tls)
        return self.asks_for_names or (bool(self.tls) and level_dane)

    @property
    def filter_seconds(self) -> float:
        """How long all filters together may take for a message that is complete."""
        return sum(line.timeout + line.wait for line in self.filter) or self.filter_timeout

    @property
    def transparent(self) -> bool:
        """Whether mail goes to the original destination, and not to OutAddress."""
        return self.transparent_proxy is not TransparentProxy.OFF

    @property
    def reset_unreachable(self) -> bool:
        """Whether a client is reset if its server cannot be reached: by default only in the transparent modes."""
        if self.connect_failure is None:
            return self.transparent
        return self.connect_failure is not ConnectFailure.REPLY

    @property
    def refuse_unreachable(self) -> bool:
        """Whether rules refuse connections to a server that cannot be reached: by default in the transparent modes."""
        return self.transparent and self.connect_failure in {None, ConnectFailure.REFUSE}

    @property
    def loopback(self) -> bool:
        """Whether OutAddress is only a port: mail goes to that port of the client's own address."""
        return not self.transparent and isinstance(self.out_address, InetAddress) and self.out_address.port_only

    @property
    def open_loopback(self) -> bool:
        """Whether loopback mode is open to other hosts: `Clients` is empty and the listener is reachable from them."""
        reachable = any(isinstance(address, InetAddress) and not _only_here(address.host) for address in self.listen)
        return self.loopback and not self.clients and reachable

    @property
    def filter_address(self) -> Address:
        """FilterType smtp: the address of the scanner; a port alone means this machine.

        Raises ValueError if FilterCommand is no address.
        """
        address = parse_address(self.filter_command or "", SMTP_PORT)
        if isinstance(address, InetAddress) and address.port_only:
            return InetAddress("127.0.0.1", address.port)
        return address

    @property
    def intercept_port(self) -> int | None:
        """The port to which rules redirect: RuleListenPort, or the first of Listen; None with only unix sockets."""
        ports = [address.port for address in self.listen if isinstance(address, InetAddress)]
        return self.rule_listen_port or next(iter(ports), None)


def _only_here(host: str) -> bool:
    """Whether only this machine can reach a listener on `host`. Of names, only `localhost` is known to be local."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
