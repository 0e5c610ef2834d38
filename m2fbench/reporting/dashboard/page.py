"""What all pages share: the template engine, the content security policy, the style sheet and the scripts.

A page loads nothing but the site's own files, by relative addresses, so that it works from a disk and below any address. Texts are escaped by the
template engine, and scripts put texts into the page as text only.
"""

import json
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from m2fbench.reporting.dashboard.naming import clean
from m2fbench.reporting.dashboard.units import NOT_MEASURED, SCALES, SIGNIFICANT
from m2fbench.reporting.page.html import ground
from m2fbench.reporting.page.plots import BLUE, GREEN, PURPLE, VERMILLION

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

_TEMPLATES = Path(__file__).parent / "templates"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; base-uri 'none'; form-action 'none'"  # of every page
)
SCRIPTS = ("common", "overview", "series", "run", "compare")


@cache
def environment() -> "Environment":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: clean(value) if type(value) is str else value,
    )
    made.filters["clean"] = clean
    made.globals["policy"] = POLICY
    return made


def render(template: str, **values: Any) -> str:
    return environment().get_template(template).render(**values)


def markup(text: str) -> "Markup":
    """Of our own SVG and JSON only: what the template is to leave as it is."""
    from markupsafe import Markup

    return Markup(text)


def json_text(value: Any) -> str:
    """JSON that may stand in a page and in a script: without a character that ends either."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def assets() -> dict[str, str]:
    """The files that every site has."""
    found = {f"assets/{name}.js": _read(f"{name}.js") for name in SCRIPTS}
    units = {"scales": SCALES, "significant": SIGNIFICANT, "none": NOT_MEASURED}
    found["assets/units.js"] = f'"use strict";\nconst UNITS = {json_text(units)};\n'
    return found | {"assets/dashboard.css": _style()}


def _read(name: str) -> str:
    return (_TEMPLATES / name).read_text(encoding="utf-8")


def _style() -> str:
    """The palette and the ground rules are those of ``report.html``, marks in the colours of its figures."""
    colours = f":root {{ --bad: {VERMILLION}; --good: {GREEN}; --odd: {PURPLE}; --curve: {BLUE}; }}\n"
    return re.sub(r"\n{2,}", "\n", ground()) + "\n" + colours + _read("dashboard.css")
