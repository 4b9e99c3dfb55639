"""SMTP as bytes and values, without sockets, clock or processes (RFC 5321).

lines         a client's byte stream split into lines, in limited memory
commands      one command line: verb, path, ESMTP parameters
paths         the address in MAIL and RCPT: it has one reading, and is written in one form
replies       what servers answer: parsed, built, encoded
answers       every reply that the proxy gives itself, in one table
data          the message between DATA and the final dot: dot-stuffing, line ends, end of data
headers       insertion of header lines into a message
message_id    finds the Message-ID of a message, for the log
capabilities  the reply to EHLO: which keywords are kept or removed, and the server's name
login         mechanism and name of a login (AUTH), never a password
xtext         the encoding of any octet in printable ASCII (DSN parameters, XCLIENT, XFORWARD)
buffers       octets that arrive in chunks and are read in parts
envelope      sender and recipients as the server accepted them

All readers work in the same way: feed them bytes in chunks of any size. They return what is complete and keep the
rest. They raise SmtpError (with the reply to give) for invalid input of a client, and ReplyError for invalid input of a
server.
"""
