"""The directives of the rules that intercept connections: `install-rules` reads them."""

from __future__ import annotations

from proxsmtp_tp.config import values
from proxsmtp_tp.config.directives.directive import Directive
from proxsmtp_tp.config.settings import RuleExisting, RuleFail, RuleForward, RuleMethod, RuleMode

RULES: tuple[Directive, ...] = (
    Directive(
        "RuleMethod",
        "rule_method",
        values.choice(RuleMethod),
        "Which firewall install-rules uses.",
        since="2.0",
    ),
    Directive(
        "RuleMode",
        "rule_mode",
        values.choice(RuleMode),
        "redirect: NAT redirects connections to the daemon. tproxy: they reach the daemon without NAT, by policy"
        " routing.",
        since="2.0",
    ),
    Directive(
        "RuleInterface",
        "rule_interface",
        values.INTERFACES,
        "The interfaces on which connections of clients arrive. install-rules needs at least one, unless RuleLocal is"
        " on.",
        since="2.0",
    ),
    Directive(
        "RuleSource",
        "rule_source",
        values.NETWORKS,
        "Only clients from these networks are intercepted.",
        since="2.0",
        default_text="all",
    ),
    Directive(
        "RuleExceptSource",
        "rule_except_source",
        values.NETWORKS,
        "Clients from these networks are not intercepted.",
        since="2.0",
    ),
    Directive(
        "RuleExceptDestination",
        "rule_except_destination",
        values.NETWORKS,
        "Connections to these networks are not intercepted.",
        since="2.0",
    ),
    Directive(
        "RulePort",
        "rule_port",
        values.PORTS,
        "The ports whose connections are intercepted.",
        since="2.0",
    ),
    Directive(
        "RuleListenPort",
        "rule_listen_port",
        values.PORT,
        "The port of the daemon that receives the intercepted connections.",
        since="2.0",
        default_text="the first port of Listen",
    ),
    Directive(
        "RuleFail",
        "rule_fail",
        values.choice(RuleFail),
        "What happens while the daemon is down. closed: connections are refused. open: they pass unfiltered.",
        since="2.0",
    ),
    Directive(
        "RuleExisting",
        "rule_existing",
        values.choice(RuleExisting),
        "What happens to connections that began unfiltered, before the rules or while RuleFail let them pass. reset:"
        " they are reset, and the client sends the rest again. finish: they continue unfiltered until they end.",
        since="2.1",
    ),
    Directive(
        "RuleForward",
        "rule_forward",
        values.choice(RuleForward),
        "What install-rules does if interception would allow connections that forward chains of the firewall or policy"
        " routing of this machine block. refuse: it installs nothing, and names these rules. overrule: it installs.",
        since="2.1",
    ),
    Directive(
        "RuleLocal",
        "rule_local",
        values.SWITCH,
        "Also intercept the outgoing mail of this machine, except the daemon's own.",
        since="2.0",
    ),
)
