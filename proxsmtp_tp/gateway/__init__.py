"""The rules of the host, which redirect SMTP connections to the daemon: installed, checked, and removed exactly.

plan            PURE: options -> one frozen plan with names, numbers, policy rules and routes
options         the options of a plan, from the configuration and the command line
interception    PURE: whether the rules of a plan intercept a connection, and why
nft_text        PURE: a plan -> the text of nftables/redirect.nft or tproxy.nft, with its defines filled in
xtables         PURE: a plan -> chains and rules of the iptables method
xtables_parts   PURE: matches and rules that several of these chains share
xtables_values  PURE: chains and rules as values, and as text
xtables_names   PURE: the names of those rules, for their counters
rule_counts     PURE: which counters a plan has, and their names
templates       finds the nft files that are installed with this program
firewall        the interface of a firewall method, and the table of methods
nft_firewall    method nftables
nftables        runs nft: loads, lists and compares tables
iptables        method iptables, through python-iptables (legacy xtables)
xtables_worker  python-iptables in processes of its own
routing         policy rules and routes over netlink
survey          what is on the host: interfaces, rights, numbers that others use
foreign         packet marks that other rules use
rulesets        the host's rulesets as scripts that load them: ours, and those of others
state           the files under /run that say what is installed
lock            the lock of a network namespace
install         install and remove, all or nothing
confirm         install on trial: undone unless confirmed in time
check           the plan compared with the rules in place
counting        how many packets met the rules
watch           puts rules back that another program removed
watch_record    the result of its last comparison, for status
describe        a plan as text for people
inventory       all rules of ours on this host, and their instances
overlap         rules of two instances that intercept the same connections
existing        connections that began unfiltered
forward         connections that the host's forwarding policy closes and interception would open
forward_trial   tries that policy in a copy of the host
heartbeat       tells the rules that the daemon runs (RuleFail open)
namespaces      network namespaces without a name, which end with their process
doctor          examines each step of interception, and sends a real mail
python          the command that runs a module of ours in another process
errors          the errors that an operator sees
"""
