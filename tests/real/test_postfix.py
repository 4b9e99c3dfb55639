"""Mail of all kinds from one real Postfix to another, across the gateway."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.real.corpus import Fate, letters
from tests.real.post_office import DOMAINS

if TYPE_CHECKING:
    from tests.real.post_office import PostOffice


def test_control_without_a_gateway(post_office: PostOffice) -> None:
    """The two Postfixes change nothing themselves: what the other tests compare is ours."""
    corpus = [letter for domain in DOMAINS for letter in letters(domain, domain) if letter.fate is Fate.DELIVERED]
    post_office.post(corpus)
    post_office.check(corpus)
