"""The configuration file: what may stand in it, what it means, and how it is read (proxsmtpd.conf(5)).

addresses    where to listen or connect: port, ip:port, host:port, [v6]:port, /path
settings     the values that the rest of the house works with; every one has a default
values       one kind of value each: from the text of the file, and back
directives   THE table: one row for each directive; check-config, man page and documentation are made from it
reader       a file in, Settings or every problem at once out

Everything but `reader.read_config` is pure.
"""
