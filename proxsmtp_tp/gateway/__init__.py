"""The rules of the box: what turns SMTP connections to us, put in, proven and taken out exactly.

plan          PURE  options -> one frozen plan: names, numbers, policy rules, routes
options       from Settings and the command line to the plan's options
nft_text      PURE  a plan -> the text of nftables/redirect.nft or tproxy.nft with its defines filled in
xtables       PURE  a plan -> chains and rules for the iptables method
nftables      loads, lists and compares our nft table, and sees other people's
iptables      the same through python-iptables (legacy xtables)
routing       policy rules and routes over netlink
survey        what the box has: interfaces, tools, kernel features; who already uses our numbers
state         the file under /run that says what is installed, and its lock
system        the one object that changes the box
install       install, remove; all or nothing
check         the plan against the live box, by meaning
confirm       the safe try: undone unless confirmed
heartbeat     how a daemon tells the rules that it lives (RuleFail open)
doctor, probe each step of interception looked at, and a real mail sent through
"""
