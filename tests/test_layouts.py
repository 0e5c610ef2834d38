"""The whole program over one set of scenes, read from every layout: the same images give the same figures, official evaluators agreeing.

What cannot be the same: the shapes have no crowds and no void, so that ADE20K and Mapillary, which cannot tell all of them, lose nothing
here; and Cityscapes' own AP, by a rule of its own (10 thresholds, areas of at least 100 pixels, 255 px of void), is another number.
"""

import functools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import m2fbench
from m2fbench.completeness import check_dataset
from m2fbench.datasets.export import export
from m2fbench.datasets.export_layouts import LAYOUTS
from m2fbench.datasets.scenes import CATEGORIES, generate
from m2fbench.datasets.shapes import Shapes, ShapesOptions
from m2fbench.types import Head

pytestmark = pytest.mark.full

COUNT = 8
HEADS: dict[str, tuple[Head, ...]] = {
    "coco": ("instance", "panoptic", "semantic"), "ade20k": ("instance", "panoptic", "semantic"),
    "cityscapes": ("instance", "panoptic", "semantic"), "mapillary-v1.2": ("panoptic", "semantic"),
    "mapillary-v2.0": ("panoptic", "semantic"), "semantic-folder": ("semantic",),
}  # fmt: skip
READERS = {
    "coco": ("coco_panoptic", {}), "ade20k": ("ade20k", {}), "cityscapes": ("cityscapes", {}),
    "mapillary-v1.2": ("mapillary", {"version": "1.2"}), "mapillary-v2.0": ("mapillary", {"version": "2.0"}),
    "semantic-folder": ("semantic_folder", {"classes": "classes.json"}),
}  # fmt: skip
Figures = dict[tuple[str, str | None], float]


def figures(result: m2fbench.RunResult) -> Figures:
    return {(m.name, m.category): m.value for m in result.measurements}


def assert_same(ours: Figures, theirs: Figures) -> None:
    for key, expected in theirs.items():
        assert ours[key] == pytest.approx(expected, abs=1e-9, nan_ok=True), key


@pytest.fixture(scope="module", autouse=True)
def scenes_made_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("m2fbench.datasets.shapes.generate", functools.cache(generate))
        yield


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("layouts")
    for layout in LAYOUTS:
        export(Shapes(ShapesOptions(count=COUNT), None, "panoptic"), layout, root / layout)
    return root


@pytest.fixture(scope="module")
def direct(tmp_path_factory: pytest.TempPathFactory, bundled_loader: Any) -> dict[str, Figures]:
    """The figures of the embedded scenes themselves, by task, from the shipped suites."""
    output = tmp_path_factory.mktemp("direct")
    overrides = {"semantic": ["protocol.semantic_resize=before"]}  # as in the exported suites
    found = {}
    for head in ("instance", "panoptic", "semantic"):
        (result,) = m2fbench.run(
            f"shapes_{head}", output=output, device="cpu", loader=bundled_loader, variants=["single-scale"] if head == "semantic" else (),
            overrides=[f"dataset.count={COUNT}", "workers=0", *overrides.get(head, [])],
        )  # fmt: skip
        found[head] = figures(result)
    return found


@pytest.mark.parametrize(("layout", "head"), [(layout, head) for layout, heads in HEADS.items() for head in heads])
def test_the_same_images_give_the_same_figures(
    exported: Path, direct: dict[str, Figures], tmp_path: Path, bundled_loader: Any, layout: str, head: Head
) -> None:
    suite, data = exported / layout / f"{head}.yaml", exported / layout
    (result,) = m2fbench.run(
        suite, data=data, output=tmp_path, device="cpu", verify=True, overrides=["workers=0"], loader=bundled_loader
    )
    assert result.status == "complete"
    assert result.verified is not None
    assert list(result.verified) == yaml.safe_load(suite.read_text())["metrics"], "every metric, by its official evaluator"
    found = figures(result)
    expected = direct[head]
    if layout == "cityscapes" and head != "semantic":
        name = "AP" if head == "instance" else "AP_th_pan"
        assert 40 < found[name, None] < 100
        assert found[name, None] != pytest.approx(expected[name, None], abs=1e-9), "its AP is another metric than COCO's"
        expected = {k: v for k, v in expected.items() if not k[0].startswith(("AP", "AR", "truth_instances"))}
        same = tmp_path / "coco_ap.yaml"
        same.write_text(yaml.safe_dump(yaml.safe_load(suite.read_text()) | {"metrics": ["coco_ap"]}))
        assert result.path is not None
        by_coco = figures(m2fbench.score(same, result.path.parent, data=data, verify=True))
        assert_same(by_coco, {k: v for k, v in direct[head].items() if k[0].startswith(("AP", "AR"))})
    assert_same(found, expected)
    headline = {"instance": "AP", "panoptic": "PQ", "semantic": "mIoU"}[head]
    assert 40 < found[headline, None] < 100
    classes = {category for _, category in found if category}
    assert classes >= {c.name for c in CATEGORIES if head != "instance" or c.is_thing}, "under the checkpoint's names"


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_the_export_is_whole(exported: Path, layout: str) -> None:
    name, options = READERS[layout]
    report = check_dataset(name, exported / layout, options)
    assert all(problem is None for problem in report.heads.values()), report.line
    assert report.images == COUNT
    assert report.missing == 0
    if report.expected is None:
        assert report.status == "complete", report.line
    else:  # its makers publish more images
        assert report.status == "incomplete"
        assert f"has {report.expected.images:,} images, got {COUNT}" in report.line
    assert math.isfinite(report.bytes)


def test_the_same_from_the_command_line(direct: dict[str, Figures], tmp_path: Path, cli: Any) -> None:
    data = tmp_path / "city"
    made = cli("datasets", "export", "shapes", data, "--layout", "cityscapes", "--count", COUNT)
    assert made.returncode == 0, made.stderr
    checked = cli("datasets", "check", "cityscapes", "--data", data)
    assert checked.returncode == 2
    assert checked.stdout.count("its truth is whole") == 3
    assert f"got {COUNT}" in checked.stderr
    assert "Traceback" not in checked.stderr
    ran = cli("run", data / "semantic.yaml", "--data", data, "--output", tmp_path / "runs", "--verify", "--device", "cpu")
    assert ran.returncode == 0, ran.stderr
    assert "semantic_iou verified by" in ran.stdout
    result = m2fbench.read_result(tmp_path / "runs/shapes_as_cityscapes_semantic/shapes-tiny/default/result.json")
    assert_same(figures(result), direct["semantic"])
