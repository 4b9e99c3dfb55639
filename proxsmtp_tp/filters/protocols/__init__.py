"""The protocols of content filters as bytes and values, without sockets, clock or processes.

errors           the one error: ProtocolError, the filter said something that is no valid answer

answers          a start line, header lines and a body: answers of spamd and of HTTP servers
clamd            clamd's INSTREAM
spamd            spamd's CHECK and PROCESS
rspamd           rspamd's /checkv2, and its answer as edits
worker           counted octets on standard input and output of a worker

milter           the dialogue about one message with a milter (sendmail 8.14, protocol 6)
milter_message   what it is shown, and what it can answer
milter_packets   its packets
milter_options   its negotiation
milter_macros    what a milter can ask about connection and message
milter_edits     what it wants changed, as values of filters.edits
milter_reply     the reply that it wants the client to get

Each reader takes bytes in chunks of any size, in limited memory, and ends with an answer or a ProtocolError.
"""
