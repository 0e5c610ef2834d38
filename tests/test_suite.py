"""Suites: what is refused and with which words; overrides, environment variables, names, schema."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m2fbench.errors import M2FBenchError, SuiteError
from m2fbench.planning import plan
from m2fbench.suite import Suite, datasets, find_suite, load_suite, metrics, schema, suite_folder, suite_names

DATASETS, METRICS = ", ".join(datasets.names()), ", ".join(metrics.names())
GOOD = """\
suite: mine
title: Mine
task: instance
dataset:
  name: shapes
  count: 5
protocol: {name: paper, min_size: 128, max_size: 192}
metrics: [coco_ap]
checkpoints:
  - name: a
    checkpoint: bundled:shapes_tiny
    published: {AP: 70.0}
    source: here
  - name: b
    checkpoint: owner/name@v1
variants:
  - {name: plain}
  - {name: half, dtype: bfloat16}
"""


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    def put(text: str) -> Path:
        path = tmp_path / "suite.yaml"
        path.write_text(text)
        return path

    return put


def test_a_good_suite_plans_rows_by_variants(write: Callable[[str], Path]) -> None:
    suite = load_suite(write(GOOD))
    specs = plan(suite)
    assert [(s.row.name, s.variant.name) for s in specs] == [("a", "plain"), ("a", "half"), ("b", "plain"), ("b", "half")]
    assert specs[0].published[0].value == 70.0
    assert [(s.row.name, s.variant.name) for s in plan(suite, only=["b"])] == [("b", "plain"), ("b", "half")]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("title: Mine", "title: 3", "suite.yaml:2: title: expected text, got 3"),
        ("task: instance", "task: instances", "suite.yaml:3: task: expected 'instance', 'panoptic' or 'semantic', got \"instances\" (did"),
        ("count: 5", "cuont: 5", "suite.yaml:6: dataset.cuont: unknown key (did you mean 'count'?); expected one of split, count"),
        ("count: 5", 'count: "5"', 'suite.yaml:6: dataset.count: expected a whole number, got "5"'),
        ("count: 5", "count: true", "suite.yaml:6: dataset.count: expected a whole number, got true"),
        ("name: shapes", "name: shape", f"suite.yaml:5: dataset.name: dataset: expected one of {DATASETS}, got 'shape' (did you mean 'shapes'?)"),
        ("min_size: 128", "min_sise: 128", "suite.yaml:7: protocol.min_sise: unknown key (did you mean 'min_size'?)"),
        ("[coco_ap]", "[coco_app]", f"suite.yaml:8: metrics.0: metric: expected one of {METRICS}, got 'coco_app' (did you mean 'coco_ap'?)"),
        ("source: here", "sources: here", "suite.yaml:13: checkpoints.0.sources: unknown key (did you mean 'source'?)"),
        ("    source: here\n", "", "checkpoints.0: expected 'source', saying where the published values are printed"),
        ("bfloat16", "bf16", "suite.yaml:18: variants.1.dtype: expected 'float32', 'bfloat16' or 'float16', got \"bf16\""),
        ("name: half", "name: plain", "expected variants of different names ('plain' is there twice)"),
        ("name: b\n", "name: b/c\n", "suite.yaml:14: checkpoints.1.name: expected letters, digits"),
        ("title: Mine\n", "title: Mine\ntitle: Yours\n", "suite.yaml:3: title: given twice, first on line 2"),
        ("  - name: b\n", "  - name: b\n    name: c\n", "suite.yaml:15: checkpoints.1.name: given twice, first on line 14"),
        ("title: Mine\n", "", "suite.yaml:1: title: expected this key, got none"),
        ("metrics: [coco_ap]", "metrics: [coco_ap, coco_ap]", "expected metrics of different names ('coco_ap' is there twice)"),
        ("AP: 70.0", "AP: .nan", "suite.yaml:12: checkpoints.0.published.AP: expected a finite number"),
        ("AP: 70.0", "APP: 70.0", "checkpoints.0.published.APP: expected a figure that the metrics give, got 'APP' (did you mean 'AP"),
        ("variants:", "tolerance: {AP: -1.0}\nvariants:", "tolerance.AP: expected greater than or equal to 0, got -1.0"),
        ("variants:\n  - {name: plain}\n  - {name: half, dtype: bfloat16}\n", "variants: []\n", "variants: expected at least one, got []"),
        ("metrics: [coco_ap]", "metrics: coco_ap", 'suite.yaml:8: metrics: expected a list, got "coco_ap"'),
        ("title: Mine", "title: [", "suite.yaml:4: not valid YAML"),
        ("title: Mine", "title: !!python/object/apply:os.system ['true']", "not valid YAML: could not determine a constructor"),
        ("variants:", "tolerance: {APx: 1.0}\nvariants:", "tolerance.APx: expected a figure that the metrics give, got 'APx' (did you mean"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_file_line_and_key(old: str, new: str, message: str, write: Callable[[str], Path]) -> None:
    assert old in GOOD
    with pytest.raises(SuiteError) as caught:
        load_suite(write(GOOD.replace(old, new, 1)))
    assert message in str(caught.value)


def test_every_problem_is_named_at_once(write: Callable[[str], Path]) -> None:
    with pytest.raises(SuiteError) as caught:
        load_suite(write(GOOD.replace("title: Mine", "title: 3").replace("bfloat16", "bf16")))
    assert len(str(caught.value).splitlines()) == 2


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x]\n" + "".join(f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 8)}]\n" for k in range(1, 12))


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "just text", "\x00", "a: &a [*a]", BOMB])
def test_what_is_no_suite_at_all(text: str, write: Callable[[str], Path]) -> None:
    with pytest.raises(SuiteError):
        load_suite(write(text))


@settings(max_examples=150, deadline=None)
@given(position=st.integers(0, len(GOOD) - 1), character=st.sampled_from(list(" \n:-[]{}\"'#&*!x0\t")))
def test_a_changed_character_gives_a_suite_or_one_clear_error(
    position: int, character: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "suite.yaml"
    path.write_text(GOOD[:position] + character + GOOD[position + 1 :])
    try:
        load_suite(path)
    except M2FBenchError as error:
        message = str(error)
    else:
        return
    assert str(path) in message


def test_overrides(write: Callable[[str], Path]) -> None:
    path = write(GOOD)
    suite = load_suite(path, ["protocol.min_size=64", "checkpoints.b.checkpoint=x/y", "variants.1.dtype=float16", "on_error=skip"])
    assert suite.protocol.min_size == 64
    assert suite.checkpoints[1].checkpoint == "x/y"
    assert suite.variants[1].dtype == "float16"
    assert suite.on_error == "skip"
    assert suite.hash != load_suite(path).hash
    assert suite.overrides == ("protocol.min_size=64", "variants.1.dtype=float16")
    for override, message in (
        ("protocol.min_size", "expected dotted.key=value"),
        ("protocol.min_size=big", "--set protocol.min_size: expected a whole number"),
        ("protcol.min_size=3", "--set protcol: unknown key (did you mean 'protocol'?)"),
        ("title=2001-99-99", "expected a value in YAML"),
        ("title=!!timestamp x", "expected a value in YAML"),
        ("title=" + "[" * 5000, "expected a value in YAML"),
        ("checkpoints.c.checkpoint=x", "expected a number under 2 or one of a, b"),
        ("title.x.y=3", "does not exist"),
        ("suite=[", "expected a value in YAML"),
    ):
        with pytest.raises(SuiteError) as caught:
            load_suite(path, [override])
        assert message in str(caught.value), override


def test_merged_keys(write: Callable[[str], Path]) -> None:
    text = GOOD.replace("  - {name: plain}", "  - &plain {name: plain, attention: eager}").replace(
        "{name: half, dtype", "{<<: *plain, name: half, dtype"
    )
    assert [v.attention for v in load_suite(write(text)).variants] == ["eager", "eager"]


def test_environment_variables_in_paths(write: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(GOOD.replace("bundled:shapes_tiny", "${MY_MODELS}/a"))
    monkeypatch.setenv("MY_MODELS", "/models")
    assert load_suite(path).checkpoints[0].checkpoint == "/models/a"
    monkeypatch.delenv("MY_MODELS")
    with pytest.raises(SuiteError, match=r"suite.yaml:11: checkpoints.0.checkpoint: the environment variable MY_MODELS is not set"):
        load_suite(path)


def test_the_hash_is_of_the_content(write: Callable[[str], Path]) -> None:
    plain = load_suite(write(GOOD)).hash
    assert load_suite(write("# a comment\n" + GOOD.replace("{name: plain}", "{ name:   plain }"))).hash == plain
    assert load_suite(write(GOOD.replace("70.0", "70.1"))).hash != plain


def test_shipped_suites_are_valid_and_found_by_name() -> None:
    assert {"coco_instance", "shapes_instance"} <= set(suite_names())
    for name in suite_names():
        assert find_suite(name).parent == suite_folder()
        assert load_suite(name).suite == name
    with pytest.raises(SuiteError, match="did you mean 'coco_instance'"):
        find_suite("coco_instanc")


def test_the_committed_schema_is_the_exported_one() -> None:
    committed = json.loads((suite_folder() / "suite.schema.json").read_text())
    assert committed == schema(), "run: m2fbench schema > suites/suite.schema.json"
    assert set(committed["properties"]) == set(Suite.model_fields)


@pytest.mark.parametrize(
    "value", ["!!bool x", "!!int ''", "!!timestamp foo", "!!python/object/apply:os.system [ls]", "1:" * 400 + "1.5"]
)
def test_tags_on_values_that_are_none_of_their_kind(value: str, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(f"suite: {value}\n")
    with pytest.raises(SuiteError, match="not valid YAML"):
        load_suite(tmp_path / "x.yaml")


def test_merge_keys_cannot_unfold_without_end(tmp_path: Path) -> None:
    levels = [f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 10)}]}}" for i in range(1, 10)]
    (tmp_path / "x.yaml").write_text("\n".join(["a0: &a0 {x: 1}", *levels]))
    with pytest.raises(SuiteError, match="more than|not valid YAML"):
        load_suite(tmp_path / "x.yaml")
