"""One connection's dialogue: events in, effects out. Pure: no socket, no clock, no await.

events     what can happen to a connection
effects    what the driver is asked to do about it
options    the configured choices that the dialogue depends on
state      the tables: phases, what may be expected of a reply
bounds     what one feed left, who must wait, what was refused
dialogue   the state of one connection and the few primitive moves on it; decides nothing
client     decisions on what the client says
refusing   commands that we refuse ourselves: counted, so many end the connection
server     decisions on what the server answers
xclient    decisions on who the client is said to be: XCLIENT, XFORWARD
without_tls  decisions where STARTTLS is taken away
size       how large a message may be
timing     what passing time means
message    decisions between DATA and the reply that settles the message
session    the one door: `Session.feed(event)` returns the effects

Every protocol decision of the proxy is made here and nowhere else.
"""
