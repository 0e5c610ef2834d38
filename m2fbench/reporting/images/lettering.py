"""Text in pictures: names from files, of any length and script, in what fonts can be counted on.

Pillow brings a font for ASCII; matplotlib, which reports need anyway, brings DejaVu Sans for accents, Greek, Cyrillic and symbols. What
neither has (Chinese, emoji) and what is written from right to left is drawn as a box: the words beside a picture have the whole name.
"""

import importlib.util
import unicodedata
from functools import cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from m2fbench.reporting.images.colours import Rgb

_MATPLOTLIBS = "mpl-data/fonts/ttf/DejaVuSans.ttf"
_NOWHERE = "\uffff"  # a character that no font has
_BOX = "\u25a1"


@cache
def _faces(size: int) -> tuple[ImageFont.FreeTypeFont, ...]:
    """Pillow's own font first; letters are laid side by side as they come, the same on every machine."""
    own = ImageFont.load_default(size)
    assert isinstance(own, ImageFont.FreeTypeFont)
    found = importlib.util.find_spec("matplotlib")
    places = found.submodule_search_locations if found is not None else None
    files = [path for place in places or () if (path := Path(place) / _MATPLOTLIBS).is_file()]
    return own, *(ImageFont.truetype(str(path), round(0.93 * size), layout_engine=ImageFont.Layout.BASIC) for path in files[:1])


@cache
def _has(face: int, character: str) -> bool:
    if character == " ":
        return True
    faces = _faces(20)
    if face >= len(faces):
        return False
    return bytes(faces[face].getmask(character)) != bytes(faces[face].getmask(_NOWHERE))


def drawable(text: str) -> tuple[str, int]:
    """The text on one line with what can be drawn of it, and which face has all of that."""
    plain = "".join(c if c.isprintable() else " " for c in unicodedata.normalize("NFC", text))
    plain = " ".join(plain.split())
    if all(_has(0, c) for c in plain):
        return plain, 0
    missing = _BOX if _has(1, _BOX) else "?"
    face = 1 if missing == _BOX else 0
    return "".join(c if _has(face, c) and unicodedata.bidirectional(c) not in ("R", "AL") else missing for c in plain), face


def text_width(text: str, size: int) -> int:
    """In pixels, of text as ``write`` draws it."""
    plain, face = drawable(text)
    return int(_faces(size)[face].getlength(plain) + 0.999)


def shortened(text: str, size: int, width: int) -> str:
    """The text, or as much of its beginning as fits into ``width`` pixels with an ellipsis; nothing where not even that does."""
    plain = drawable(text)[0]
    if text_width(plain, size) <= width:
        return plain
    low, high = 0, min(len(plain), 400)  # as many characters as surely do, and do not, fit
    while low < high:
        middle = (low + high + 1) // 2
        if text_width(plain[:middle].rstrip() + "…", size) <= width:
            low = middle
        else:
            high = middle - 1
    return plain[:low].rstrip() + "…" if low else ""


def line_height(size: int) -> int:
    ascent, descent = _faces(size)[0].getmetrics()
    return ascent + descent


def write(image: Image.Image, place: tuple[int, int], text: str, size: int, colour: Rgb) -> None:
    """Text whose top left corner is at ``place`` (x, y); both faces stand on one line."""
    plain, face = drawable(text)
    base = _faces(size)[0].getmetrics()[0]
    ImageDraw.Draw(image).text((place[0], place[1] + base), plain, fill=colour, font=_faces(size)[face], anchor="ls")
