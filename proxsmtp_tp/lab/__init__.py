"""A whole gateway on one machine: sender, gateway and MX in namespaces of their own, with real mail.

isolate  runs a command in network, mount and process namespaces: nothing outlives it, nothing outside changes
"""
