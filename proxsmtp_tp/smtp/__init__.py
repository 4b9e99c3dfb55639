"""SMTP as bytes and values, with no socket, clock or process in sight (RFC 5321).

lines         a client's byte stream cut into lines, bounded
commands      one command line: verb, path, ESMTP parameters
paths         the address in MAIL and RCPT: one reading, one notation
replies       what servers answer: parsed, built, encoded
answers       every reply that we originate, in one table
data          the message between DATA and the final dot: dots, line ends, end of data
headers       header lines put into a message on its way
capabilities  the EHLO reply: what stays, what goes, the name in it
xtext         any octet in printable ASCII (DSN parameters, XCLIENT, XFORWARD)
envelope      sender and recipients as the server accepted them

Every reader has one contract: feed it bytes in any chunks; it returns what is complete, keeps what is not,
and raises SmtpError (with the reply to give) for what no client should send, ReplyError for what no server
should.
"""
