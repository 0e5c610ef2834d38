"""A picture as reports carry it: the bytes of a PNG with the words that belong to it."""

import re
import unicodedata
from dataclasses import dataclass

_LONGEST = 80  # characters of a name


@dataclass(frozen=True)
class Picture:
    """name: safe as a file's name and as an HTML id, without suffix. title, caption, alt: plain text, which may hold names from files and is
    to be escaped wherever markup is written; alt says what is to be seen for those who cannot. width, height: in pixels."""

    name: str
    title: str
    caption: str
    alt: str
    png: bytes
    width: int
    height: int


def safe_name(*parts: object) -> str:
    """Lower-case letters, digits, - and _ only, of at most 80 characters, beginning with a letter; from any texts. Of one that is too long the
    middle goes, so that a number at the end still tells pictures apart; different texts may give one name otherwise."""
    plain = [word for word in (_plain(str(part)) for part in parts) if word]
    name = "-".join(plain)
    name = name if name[:1].isalpha() else f"p-{name}"
    if len(name) > _LONGEST:
        last = plain[-1][-_LONGEST // 2 :]
        name = f"{name[: _LONGEST - 1 - len(last)].rstrip('-_')}-{last.lstrip('-_')}"
    return name.rstrip("-_")


def _plain(text: str) -> str:
    ascii_only = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9_]+", "-", ascii_only).strip("-_")
