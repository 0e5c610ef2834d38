"""The page: one HTML file that holds everything it shows and loads nothing.

Every text is escaped by the template engine; SVG is parsed and written again under ids of its own. A content security policy forbids whatever
would be loaded, and all scripts but the one whose hash it names.
"""

import base64
import hashlib
import io
import math
import re
import xml.etree.ElementTree as ET
from pathlib import Path

from m2fbench.reporting.images.picture import Picture
from m2fbench.reporting.page.plots import GREY
from m2fbench.reporting.page.records import Cell, Figure, Page

QUALITY = 60
"""Of the photos in the page, which are two thirds of its size; letters stay sharp."""
_TEMPLATES = Path(__file__).parent / "templates"
_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_NUMBERS = {"d", "x", "y", "transform", "points"}
_DROPPED = {f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"}


def render(page: Page) -> str:
    """The HTML document."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"inline_svg": inline_svg, "data_address": data_address, "sort_value": sort_value}
    text, style = (
        (_TEMPLATES / "report.js").read_text(encoding="utf-8"),
        ground() + (_TEMPLATES / "report.css").read_text(encoding="utf-8"),
    )
    return environment.get_template("report.html.j2").render(
        page=page, script=_markup(text), style=_markup(style), policy=policy(text)
    )


def ground() -> str:
    """The palette and the ground rules, which all our pages share."""
    return (_TEMPLATES / "ground.css").read_text(encoding="utf-8")


def policy(script: str) -> str:
    """The content security policy of a page whose one script this is. Styles stand in attributes of figures, so they are let in."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def _markup(text: str) -> str:
    """Of our own files only: what the template is to leave as it is."""
    from markupsafe import Markup

    return Markup(text)


def inline_svg(figure: Figure) -> str:
    """The figure as a part of an HTML page: as wide as there is room, grey in the colour of the page's text, ids that no other figure has."""
    for prefix, name in (("", _SVG), ("xlink", _XLINK)):
        ET.register_namespace(prefix, name)
    root = ET.fromstring(figure.svg)
    for parent in list(root.iter()):
        for child in [c for c in parent if c.tag in _DROPPED]:
            parent.remove(child)
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', figure.svg))
    for element in root.iter():
        if element.get("id", "") not in used:
            element.attrib.pop("id", None)
        for name, value in element.attrib.items():
            element.set(name, _attribute(name, value, figure.key))
        if element.tag != f"{{{_SVG}}}text" and not (element.text or "").strip():
            element.text = None
        element.tail = element.tail if (element.tail or "").strip() else None
    width = float(str(root.get("width", "500pt")).removesuffix("pt"))
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.set("style", f"stroke-linejoin: round; stroke-linecap: butt; max-width: {width * 4 / 3:.0f}px")
    root.set("role", "img")
    root.set("aria-label", figure.alt)
    return _markup(ET.tostring(root, encoding="unicode"))


def _attribute(name: str, value: str, key: str) -> str:
    if name == "id":
        return f"{key}-{value}"
    if name.endswith("href") and value.startswith("#"):
        return f"#{key}-{value[1:]}"
    if name in _NUMBERS:
        return " ".join(re.sub(r"(\.\d\d)\d+", r"\1", value).split())  # a hundredth of a point is not to be seen
    if name in ("style", "fill", "stroke", "clip-path"):
        value = re.sub(r"url\(#", f"url(#{key}-", value)
        value = re.sub(r"font-family: [^;]*;? ?", "", value)  # that of the page
        return re.sub(re.escape(GREY), "currentColor", value, flags=re.IGNORECASE)
    return value


def data_address(picture: Picture) -> str:
    """A picture as the address of an image: as WebP, which is a third of the PNG, lossy but for what stands out."""
    from PIL import Image

    packed = io.BytesIO()
    with Image.open(io.BytesIO(picture.png)) as image:
        image.convert("RGB").save(packed, "webp", quality=QUALITY, method=4)
    return f"data:image/webp;base64,{base64.b64encode(packed.getvalue()).decode()}"


def sort_value(cell: Cell) -> str | None:
    """What the page's script sorts a cell by: seven digits of a number, "" for none, else the text; None where that is the cell's content."""
    if isinstance(cell.value, float | int):
        value = "" if math.isnan(cell.value) else f"{float(cell.value):.7g}".replace("inf", "1e999")
    else:
        value = cell.text if cell.value is None else cell.value
    return None if value == cell.text and not cell.note and not cell.about else value
