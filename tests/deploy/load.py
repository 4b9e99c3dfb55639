"""Sends mail through the gateway during a test."""

from __future__ import annotations

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

from proxsmtp_tp.lab.network import MX_V4, MX_V6
from tests.deploy import acceptance

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.deploy.machines import Machines

PAUSE_SECONDS = 0.1
"""From the end of a mail to the next one. A daemon takes several times this long to start, so a client meets a gateway
that refuses connections meanwhile. Without a pause, the mail takes the processors from what is tested.
"""
# On the sender: mail after mail, each in a connection of its own, until told to stop; what was not taken is told.
_LOAD = """
import json, os, smtplib, sys, time
addresses, sent, refused = sys.argv[2:], 0, []
while not os.path.exists("/run/stop-load"):
    time.sleep(float(sys.argv[1]))
    try:
        with smtplib.SMTP(addresses[sent % 2], 25, local_hostname="sender.example", timeout=60) as link:
            link.sendmail("alice@sender.example", ["bob@v4.example"], "X-Load: %d\\r\\n\\r\\n.\\r\\n" % sent)
    except Exception as error:
        refused.append("%d: %r" % (sent, error))
    sent += 1
json.dump({"sent": sent, "refused": refused}, sys.stdout)
"""


@contextmanager
def load(machines: Machines) -> Iterator[None]:
    """Mail is sent during the block; afterwards none of it was refused, and each message arrived once."""
    acceptance.empty(machines.mx, acceptance.MAILBOX)
    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(
            machines.sender.run, "python3", "-", str(PAUSE_SECONDS), MX_V4, MX_V6, text=_LOAD, seconds=1200
        )
        try:
            assert acceptance.wait_until(lambda: count_arrived(machines) > 5), "no mail flows"
            yield
            so_far = count_arrived(machines)
            assert acceptance.wait_until(lambda: count_arrived(machines) > so_far + 5), "no mail flows any more"
        finally:
            machines.sender.run("touch", "/run/stop-load")
            told = json.loads(result.result())
            machines.sender.run("rm", "/run/stop-load")
    assert told["refused"] == [], f"refused: {told['refused']}"
    assert told["sent"] > 20, f"only {told['sent']} mails were sent"
    acceptance.wait_until(lambda: count_arrived(machines) >= told["sent"])
    script = f"grep -h ^X-Load: -r {acceptance.MAILBOX}"
    arrived = Counter(int(line.split()[1]) for line in machines.mx.run("sh", "-c", script).splitlines())
    assert arrived == Counter(range(told["sent"]))


def count_arrived(machines: Machines) -> int:
    """Messages at the MX."""
    return int(machines.mx.run("sh", "-c", f"ls {acceptance.MAILBOX} | wc -l"))
