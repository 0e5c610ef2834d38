"""Pictures of the dashboard on a made-up year of nightlies.

python scripts/dashboard_shots.py reports/dashboard      # needs playwright and /usr/bin/chromium
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from demo_history import write_history, year
from PIL import Image
from playwright.sync_api import sync_playwright

from m2fbench.history.history import History
from m2fbench.reporting.dashboard.site import SiteRequest, write_site

CHROMIUM = "/usr/bin/chromium"
SCREEN = {"viewport": {"width": 1280, "height": 1000}}
PHONE = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "has_touch": True}
DARK = {"color_scheme": "dark"}


def site(folder: Path, nights: int) -> Path:
    write_history(folder / "history", year(), nights)
    with History(folder / "history") as history:
        entries, series, problems = history.entries(), history.series(), history.problems()
    request = SiteRequest("Mask2Former nightlies", now="2026-11-30T05:00:00+00:00")
    return write_site(folder / "site", entries, series, problems, request)[0].parent


def pages(root: Path) -> list[tuple[str, str, dict[str, Any]]]:
    """(name of the picture, address, how it is opened)"""
    listed = json.loads((root / "data" / "series.json").read_text())["series"]
    fps = next(s for s in listed if (s["row"], s["suite"], s["figure"]) == ("Swin-B", "cityscapes_panoptic", "fps"))
    worst = next(s["regression"] for s in listed if s["regression"] and s["figure"] == "mIoU")
    comparison = f"compare.html#{worst['last_good'][:12]}..{worst['first_bad'][:12]}"
    return [
        ("overview", "index.html", SCREEN), ("overview_dark", "index.html", SCREEN | DARK), ("overview_phone", "index.html", PHONE),
        ("series", fps["page"], SCREEN), ("series_dark", fps["page"], SCREEN | DARK), ("series_phone", fps["page"], PHONE),
        ("comparison", comparison, SCREEN),
    ]  # fmt: skip


def take(browser: Any, root: Path, name: str, address: str, how: dict[str, Any], folder: Path) -> None:
    page = browser.new_page(**how)
    page.goto(f"{root.as_uri()}/{address}")
    page.locator("main h1").first.wait_for()
    if name in ("series", "series_dark"):
        box = page.locator(".chart:visible .area").bounding_box()
        page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + 100)
    page.wait_for_timeout(400)
    path = folder / f"{name}.png"
    page.screenshot(path=path)
    with Image.open(path) as image:
        image.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(path, optimize=True)
    page.close()
    print(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--nights", type=int, default=365)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name, sync_playwright() as running:
        root = site(Path(name), options.nights)
        browser = running.chromium.launch(executable_path=CHROMIUM, args=["--headless", "--no-sandbox", "--disable-gpu"])
        for picture in pages(root):
            take(browser, root, *picture, options.folder)
        browser.close()


if __name__ == "__main__":
    main()
