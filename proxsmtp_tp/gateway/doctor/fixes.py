"""Every command that doctor names as a fix, in one table. A fix is typed as it is: it has no place for a name.

A finding takes only a `Fix`, and only `fix` makes one. tests/unit/gateway/test_doctor_fixes.py requires for each row a
test that types the command.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

FIXES = {
    # The daemon, as it was started.
    "start, unit": "systemctl start {unit}",
    "start, by hand": "proxsmtp-tp serve -f {file}",
    "restart, unit": "systemctl restart {unit}",
    # The next daemon opens its listening sockets when the old one has closed them; without a pid file nothing shows
    # when.
    "restart, by hand": "kill {pid}; sleep 1; {start}",
    "reload, unit": "systemctl reload {unit}",
    "reload, by hand": "proxsmtp-tp reload -f {file}",
    "unit": "proxsmtp-tp install-service {instance}",
    # The host.
    "interface is down": "ip link set {interface} up",
    "port of a bridge": "{install_rules} --interface {bridge}",
    "not forwarded": "sysctl -w {setting}=1",
    "no route back": "ip route add {network} dev {interface}",
    "strict reverse path": "sysctl -w {setting}=2",
    "link-local address only": "ip -6 address add {address} dev {interface}",
    "bridge that filters": "sysctl -w {setting}=0",
    "untracked by nft": "nft delete rule {chain} handle {handle}",
    "untracked by iptables": "{tool} -t raw -D {rule}",
    "connection table is full": "sysctl -w net.netfilter.nf_conntrack_max={limit}",
    # The rules.
    "rules are absent": "{install_rules}",
    "rules differ": "{install_rules}",
    "policy routing differs": "{install_rules}",
    "rules of another instance": "{remove_rules}",
    # The output of `ip rule`, without the priority, is valid input for `ip rule add`.
    "policy rule comes first": (
        "{ip} rule add priority {late} $({ip} rule show priority {old} | head -n 1 | cut -f 2-)"
        " && {ip} rule del priority {old}"
    ),
    "no heartbeat": "{restart}",
    # Other programs' firewalls.
    # No reload: firewalld would drop what is not permanent, such as the zone of an interface.
    "firewalld": (
        'zone="$(firewall-cmd --get-zone-of-interface={interface} 2>&1)" || zone="$(firewall-cmd --get-default-zone)";'
        ' firewall-cmd --zone="$zone" --add-port={port}/tcp'
        ' && firewall-cmd --permanent --zone="$zone" --add-port={port}/tcp'
    ),
    "ufw": "ufw allow in on {interface} to any port {port} proto tcp",
    "iptables drops": "{tool} -I INPUT -i {interface} -p tcp --dport {port} -j ACCEPT",
    "iptables drops what is diverted": (
        "{tool} -I INPUT -i {interface} -p tcp --dport {port} -m addrtype ! --dst-type LOCAL -j ACCEPT"
    ),
    "nft drops": "nft insert rule {chain} iifname {interface} tcp dport {port} accept",
    "nft drops what is diverted": (
        "nft insert rule {chain} iifname {interface} tcp dport {port} fib daddr type != local accept"
    ),
    # The unit and the listeners.
    "no unit": "{unit}",
    "unit lacks a capability": "{unit}",
    "unit has changed on disk": "systemctl daemon-reload && {restart}",
    "daemon does not run": "{start}",
    "listens elsewhere": "{restart}",
    "listens on another port": "{restart}",
    "no listener at a path": "{restart}",
    "listener is not transparent": "{restart}",
    "unit's listener is not transparent": "{unit}",
    # A stop waits for what hangs, up to TimeoutStopSec.
    "daemon hangs, unit": "systemctl kill --signal=KILL {name}; {restart}",
    "daemon hangs, by hand": "kill -KILL {pids}; {start}",
    "daemon lacks CAP_NET_RAW": "{restart}",
    "unit's daemon lacks CAP_NET_RAW": "{unit}",
    "few descriptors": "{restart}",
    # The directory for messages, and the filter.
    "disk is read-only": "mount -o remount,rw {mount}",
    "unit's directory is read-only": "{unit}",
    "directory": "install -d -m 0700 -o {owner} {path}",
    # The unit lets the daemon write there only if the directory is there when it starts.
    "unit's directory": "install -d -m 0700 -o {owner} {path} && {unit} && {restart}",
    "private directory": "{restart}",
    "filter's mode": "chmod a+rx {file}",
    "carriage returns": r"sed -i 's/\r$//' {file}",
    # A process gets its groups when it starts.
    "filter's socket": "usermod -a -G {groups} {user} && {restart}",
    "bypass": "{bypass} --end",
    # What the status tells.
    "worker is stopped": "kill -CONT {pids}",
    "worker hangs": "kill -KILL {pids}",
    "no worker": "{restart}",
    "restart is due": "{restart}",
    "file has changed": "{reload}",
    "minting process is stopped": "kill -CONT {pid}",
    # Not a reload: a first `Tls: terminate` needs a CA, which is made at a start.
    "TLS is not as the file says": "{restart}",
    "nobody takes log lines": "systemctl restart {service}",
}
"""What is wrong -> a shell command. {word} stands for a quoted word, for words, or for another command."""


class Fix(str):
    """A shell command, or a part of one."""

    __slots__ = ()


NONE = Fix("")
"""The administrator must decide."""


def fix(row: str, **words: str | int | list[str]) -> Fix:
    """The command of a row of FIXES. `words` are quoted for the shell, except a Fix."""
    return Fix(FIXES[row].format(**{name: _text(value) for name, value in words.items()}))


def words(*parts: str) -> Fix:
    """One of our own commands, to begin a fix with."""
    return Fix(shlex.join(parts))


def all_of(fixes: Iterable[Fix]) -> Fix:
    """All of them, one after the other."""
    return Fix(" && ".join(fixes))


def _text(value: str | int | list[str]) -> str:
    if isinstance(value, Fix):
        return str(value)
    return shlex.join(value) if isinstance(value, list) else shlex.quote(str(value))
