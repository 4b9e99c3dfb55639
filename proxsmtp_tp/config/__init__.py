"""The configuration file: its directives, their values, and how it is read (proxsmtpd.conf(5)).

directives    the table of directives, one row each: check-config, man page and Ansible tables are made from it
settings      the values that the other packages use; each has a default
values        kinds of values: from the text of the file, and back
parsing       parsers of numbers and words
rates         limits of a client: events per time, and the duration of locks
filter_lines  the directive Filter: one filter of the chain, with its settings, from text and back
tls_lines     the directives Tls and UpstreamTls: the rules of TLS, from text and back
tls_files     the directives with files of certificates and keys, from text and back
tls_check     what is wrong with the lines about TLS together
chain_check   what is wrong with a chain
addresses     addresses to listen on or to connect to: port, ip:port, host:port, [v6]:port, /path
socket_names  addresses in the form that the kernel uses
reader        reads a file: Settings, or all problems at once
advice        warnings about a valid file that is probably not what was meant

Everything except `reader.read_config` is pure.
"""
