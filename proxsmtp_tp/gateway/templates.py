"""Where the nft files are: `data/nftables` in the package when installed, `nftables/` beside it in a checkout."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent
PLACES = (_PACKAGE / "data" / "nftables", _PACKAGE.parent / "nftables")


def read_template(name: str) -> str:
    """The text of one of our nft files. Raises FileNotFoundError for an incomplete installation."""
    for place in PLACES:
        if (place / name).is_file():
            return (place / name).read_text(encoding="utf-8")
    raise FileNotFoundError(f"{name} is missing from this installation of proxsmtp-tp: install it again")
