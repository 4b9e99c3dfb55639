"""The protocols of content filters as bytes and values, without sockets, clock or processes.

errors  the one error: ProtocolError, the filter said something that is no valid answer

milter          the dialogue about one message with a milter (sendmail 8.14, protocol 6)
milter_message  what it is shown, and what it can answer
milter_packets  its packets
milter_options  its negotiation
milter_macros   what it can ask about connection and message
milter_edits    what it wants changed, as values of filters.edits
milter_reply    the reply that it wants the client to get

clamd    INSTREAM: the message in chunks, one line of answer
answers  a start line, header lines and a body: answers of spamd and of HTTP servers
spamd    SPAMC/1.5: requests, and the score in an answer
rspamd   POST /checkv2: the request, and what the JSON of an answer means
worker   the protocol of type worker: heads of name=value lines, counted octets

Each reader takes bytes in chunks of any size, in limited memory, and ends with an answer or a ProtocolError.
"""
