"""Variants: their settings are what really runs, they stay apart in one process, and what cannot be done is said and left out."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import make_checkpoint
from test_sisters import LABELS, backbone, maskformer

import m2fbench
from m2fbench.errors import SuiteError, UnsupportedError
from m2fbench.models import shaping, variants
from m2fbench.models.checkpoint import Checkpoint, resolve
from m2fbench.models.load import load, load_module
from m2fbench.models.shaping import fold_batch_norms, rewrite
from m2fbench.models.variants import Switches, switched, unsupported
from m2fbench.planning import Event
from m2fbench.sections import Variant
from m2fbench.suite import load_suite


@pytest.fixture(scope="module")
def swin(tiny_checkpoint: Path) -> Checkpoint:
    return resolve(str(tiny_checkpoint))


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """Batch norms with statistics and weights as after training; fresh ones would make folding nothing."""
    from transformers import Mask2FormerForUniversalSegmentation

    folder = make_checkpoint(tmp_path_factory.mktemp("tiny") / "resnet", LABELS, backbone=backbone("resnet"))
    model = Mask2FormerForUniversalSegmentation.from_pretrained(folder)
    for part in model.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            for tensor, low in ((part.running_mean, -0.5), (part.running_var, 0.5), (part.weight, 0.5), (part.bias, -0.5)):
                torch.nn.init.uniform_(tensor, low, low + 1)
    model.save_pretrained(folder)
    return resolve(str(folder))


def variant(**settings: Any) -> Variant:
    return Variant(name="x", **settings)


def images(count: int = 3) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return [torch.randn(1, 3, 96, 128 + 32 * (k % 2), generator=generator) for k in range(count)]


def state() -> tuple[object, ...]:
    """Everything of the process that a forward pass might leave changed."""
    cudnn = torch.backends.cudnn
    return (
        torch.get_float32_matmul_precision(), torch.backends.cuda.matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark,
        torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu"), torch.is_inference_mode_enabled(),
        torch._dynamo.config.recompile_limit, torch._dynamo.config.fail_on_recompile_limit_hit,
    )  # fmt: skip


@pytest.fixture
def restored() -> Iterator[None]:
    """The switches as they were, whatever a test sets."""
    cudnn = torch.backends.cudnn
    before = torch.get_float32_matmul_precision(), cudnn.allow_tf32, cudnn.benchmark
    yield
    torch.set_float32_matmul_precision(before[0])
    cudnn.allow_tf32, cudnn.benchmark = before[1:]


def test_autocast_is_what_runs(swin: Checkpoint) -> None:
    model = load(swin, variant(autocast="bfloat16"), "cpu")
    seen = []
    assert model.module is not None
    model.module.model.pixel_level_module.decoder.mask_projection.register_forward_hook(
        lambda part, given, made: seen.append((part.weight.dtype, made.dtype))
    )
    before = state()
    classes, masks = model.forward(images(1)[0])
    assert seen == [(torch.float32, torch.bfloat16)]
    assert (classes.dtype, masks.dtype) == (torch.float32, torch.float32)
    assert model.settings["autocast"] == "bfloat16"
    assert model.settings["dtype"] == "float32"
    assert state() == before


def test_channels_last_is_what_runs(resnet: Checkpoint) -> None:
    model, plain = load(resnet, variant(channels_last=True), "cpu"), load(resnet, variant(), "cpu")
    seen = []
    for each in (model, plain):
        assert each.module is not None
        each.module.model.pixel_level_module.encoder.embedder.register_forward_hook(
            lambda part, given, made: seen.append([x.is_contiguous(memory_format=torch.channels_last) for x in (given[0], made)])
        )
    x = images(1)[0]
    for ours, theirs in zip(model.forward(x), plain.forward(x), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    assert seen == [[True, True], [False, False]]
    assert (model.settings["channels_last"], plain.settings["channels_last"]) == (True, False)


def test_switches_are_on_during_the_forward_pass_only(swin: Checkpoint, restored: None) -> None:
    model = load(swin, variant(tf32=True, cudnn_benchmark=True), "cpu")
    cudnn, seen = torch.backends.cudnn, []
    assert model.module is not None
    model.module.register_forward_hook(
        lambda *_: seen.append((torch.backends.cuda.matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark))
    )
    for precision, allowed in (("highest", True), ("high", False)):
        torch.set_float32_matmul_precision(precision)
        cudnn.allow_tf32 = allowed
        before = state()
        model.forward(images(1)[0])
        assert state() == before
    assert seen == [(True, True, True)] * 2
    assert not model.settings["tf32"], "TF32 is of CUDA devices: what is read back on a CPU is that nothing took effect"
    plain, seen[:] = load(swin, variant(), "cpu"), []
    assert plain.module is not None
    plain.module.register_forward_hook(
        lambda *_: seen.append((torch.backends.cuda.matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark))
    )
    torch.set_float32_matmul_precision("high")
    plain.forward(images(1)[0])
    assert seen == [(False, False, False)], "what the caller's process allows does not reach a float32 model"


@pytest.mark.parametrize("settings", [{"tf32": True, "cudnn_benchmark": True}, {"autocast": "bfloat16"}])
def test_switches_are_put_back_after_an_exception(settings: dict[str, Any], swin: Checkpoint) -> None:
    model = load(swin, variant(**settings), "cpu")
    assert model.module is not None
    model.module.model.transformer_module.register_forward_pre_hook(lambda *_: 1 / 0)
    before = state()
    with pytest.raises(ZeroDivisionError):
        model.forward(images(1)[0])
    assert state() == before


def test_switches_set_by_torchs_newer_interface_are_put_back_by_it(restored: None) -> None:
    """torch refuses to read by the older interface what was set by the newer."""
    matmul: Any = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    matmul.fp32_precision = "tf32"
    try:
        with switched(Switches(tf32=False, benchmark=False)):
            assert not torch.backends.cuda.matmul.allow_tf32
        assert matmul.fp32_precision == "tf32"
    finally:
        matmul.fp32_precision = before


def test_threads_share_switches_or_wait() -> None:
    on, off = Switches(tf32=True, benchmark=False), Switches(tf32=False, benchmark=False)
    order: list[str] = []

    def enter(wanted: Switches, name: str) -> threading.Thread:
        def body() -> None:
            with switched(wanted):
                order.append(f"{name} {torch.backends.cudnn.allow_tf32}")

        thread = threading.Thread(target=body)
        thread.start()
        return thread

    with switched(on):
        enter(on, "same").join(5)
        other = enter(off, "other")
        other.join(0.05)
        assert order == ["same True"]
        assert other.is_alive()
        order.append("left")
    other.join(5)
    assert order == ["same True", "left", "other False"]


@pytest.mark.full
def test_interleaved_each_gives_what_it_gives_alone(resnet: Checkpoint) -> None:
    """Bit for bit, image by image, among variants that set everything else."""
    all_settings: list[dict[str, Any]] = [
        {}, {"autocast": "bfloat16"}, {"dtype": "bfloat16"}, {"tf32": True, "cudnn_benchmark": True}, {"channels_last": True},
        {"lean": True, "fuse": True},
    ]  # fmt: skip
    alone = [[model.forward(x) for x in images()] for s in all_settings for model in [load(resnet, variant(**s), "cpu")]]
    together = [load(resnet, variant(**s), "cpu") for s in all_settings]
    for k, x in enumerate(images()):
        for model, expected in zip(together, alone, strict=True):
            for ours, theirs in zip(model.forward(x), expected[k], strict=True):
                assert torch.equal(ours, theirs)


def test_folded_batch_norms_change_nothing_but_rounding(resnet: Checkpoint) -> None:
    folded, plain = load(resnet, variant(fuse=True), "cpu"), load(resnet, variant(), "cpu")
    assert folded.module is not None
    assert plain.module is not None
    norms = [part for part in plain.module.modules() if isinstance(part, torch.nn.BatchNorm2d)]
    assert not any(isinstance(part, torch.nn.BatchNorm2d) for part in folded.module.modules())
    assert folded.settings["fused_batch_norms"] == len(norms) > 4
    assert folded.parameters == plain.parameters, "those of the checkpoint"
    x = images(1)[0]
    encoders = [model.module.model.pixel_level_module.encoder for model in (folded, plain)]
    with torch.inference_mode():
        for ours, theirs in zip(*(encoder(x).feature_maps for encoder in encoders), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    for ours, theirs in zip(folded.forward(x), plain.forward(x), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("name", ["swin", "resnet"])
def test_lean_changes_nothing_but_rounding(name: str, attention: str, request: pytest.FixtureRequest) -> None:
    checkpoint = request.getfixturevalue(name)
    lean, plain = (load(checkpoint, variant(lean=flag, attention=attention), "cpu") for flag in (True, False))
    for x in images():
        for ours, theirs in zip(lean.forward(x), plain.forward(x), strict=True):
            assert ours.shape == theirs.shape
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    assert lean.settings["attention"]["masked"] == attention


@pytest.mark.full
def test_lean_gives_the_bundled_checkpoint_the_same_logits() -> None:
    """Trained weights, whose masks are sharp; attention masks of all layers and both kernels."""
    checkpoint = resolve("bundled:shapes_tiny")
    lean, plain = load(checkpoint, variant(lean=True, fuse=True), "cpu"), load(checkpoint, variant(), "cpu")
    for x in images(4):
        for ours, theirs in zip(lean.forward(x), plain.forward(x), strict=True):
            assert (ours - theirs).abs().max() < 1e-4 * theirs.abs().max()


def test_a_query_that_may_look_nowhere_looks_everywhere(swin: Checkpoint) -> None:
    """With the mask embeddings at 0 no query has a mask anywhere."""
    outputs = []
    for lean in (False, True):
        module = load_module(swin)
        head = module.model.transformer_module.decoder.mask_predictor.mask_embedder
        torch.nn.init.zeros_(list(head.parameters())[-2])
        torch.nn.init.zeros_(list(head.parameters())[-1])
        module.model.pixel_level_module.decoder.mask_projection.bias.data.fill_(1.0)
        list(head.parameters())[-1].data.fill_(-5.0)  # every mask logit is far below 0
        module.model.pixel_level_module.decoder.mask_projection.weight.data.zero_()
        rewrite(module, variant(lean=lean))
        with torch.inference_mode():
            outputs.append(module(pixel_values=images(1)[0]))
    assert (outputs[0].masks_queries_logits < 0).all()
    torch.testing.assert_close(outputs[0].class_queries_logits, outputs[1].class_queries_logits, rtol=1e-4, atol=1e-5)


def test_a_rewrite_that_answers_otherwise_is_refused(swin: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(module: Any, *, sdpa: bool) -> None:
        module.model.pixel_level_module.decoder.mask_projection.weight.data *= 1.1

    monkeypatch.setattr(shaping, "make_lean", wrong)
    with pytest.raises(UnsupportedError, match="lean: gives other outputs than the model with transformers"):
        load(swin, variant(lean=True), "cpu")
    monkeypatch.setattr(shaping, "make_lean", lambda module, *, sdpa: setattr(module, "forward", None))
    with pytest.raises(UnsupportedError, match="lean: does not fit transformers .* \\(TypeError"):
        load(swin, variant(lean=True), "cpu")


def test_what_a_model_cannot_do(swin: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="fuse: no batch norm follows a convolution in this model"):
        load(swin, variant(fuse=True), "cpu")
    assert fold_batch_norms(torch.nn.Sequential(torch.nn.Conv2d(3, 3, 1), torch.nn.BatchNorm2d(3))) == 0
    sister = resolve(str(maskformer(tmp_path / "maskformer", "resnet")))
    with pytest.raises(UnsupportedError, match="lean: knows Mask2Former only, this is a MaskFormerForInstanceSegmentation"):
        load(sister, variant(lean=True), "cpu")


def test_variants_that_any_cpu_can_do() -> None:
    for settings in ({}, {"channels_last": True}, {"fuse": True}, {"lean": True}, {"attention": "eager"}, {"dtype": "bfloat16"}):
        assert unsupported(variant(**settings), "cpu") is None


def test_what_a_cpu_cannot_do() -> None:
    assert unsupported(variant(tf32=True), "cpu") == (
        "tf32: needs an NVIDIA GPU of compute capability 8.0 or newer, this runs on cpu"
    )
    assert unsupported(variant(cudnn_benchmark=True), "cpu") == "cudnn_benchmark: needs an NVIDIA GPU with cuDNN, this runs on cpu"


def test_what_an_old_gpu_cannot_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (7, 5))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    monkeypatch.setattr(torch.backends.cudnn, "is_available", lambda: True)
    assert unsupported(variant(tf32=True), "cuda") == "tf32: needs an NVIDIA GPU of compute capability 8.0 or newer, this has 7.5"
    for key in ("dtype", "autocast"):
        assert unsupported(variant(**{key: "bfloat16"}), "cuda") == f"{key}: bfloat16: this GPU has no bfloat16 arithmetic"
        assert unsupported(variant(**{key: "float16"}), "cuda") is None
    assert unsupported(variant(cudnn_benchmark=True), "cuda") is None
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (9, 0))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    for settings in ({"tf32": True}, {"dtype": "bfloat16"}, {"autocast": "bfloat16"}):
        assert unsupported(variant(**settings), "cuda") is None
    monkeypatch.setattr(torch.version, "hip", "6.2")
    assert str(unsupported(variant(tf32=True), "cuda")).endswith("this is an AMD GPU")


def test_half_precision_is_asked_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_kernel(*_: Any, **__: Any) -> None:
        raise RuntimeError("\"grid_sampler_2d_cpu\" not implemented for 'Half'\nmore")

    monkeypatch.setattr(torch.nn.functional, "grid_sample", no_kernel)
    reason = "float16: torch cannot on cpu: \"grid_sampler_2d_cpu\" not implemented for 'Half'"
    assert unsupported(variant(dtype="float16"), "cpu") == f"dtype: {reason}"
    assert unsupported(variant(autocast="float16"), "cpu") == f"autocast: {reason}"


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def fail(device: str) -> None:
        raise RuntimeError("InvalidCxxCompiler: No working C++ compiler found in torch._inductor.config.cpp.cxx\n\nSet TORCH_LOGS")

    monkeypatch.setattr(variants, "_compile_something", fail)
    variants._no_compiler.cache_clear()
    yield
    variants._no_compiler.cache_clear()


def test_compilation_is_tried(no_compiler: None) -> None:
    assert unsupported(variant(compile=True), "cpu") == (
        "compile: torch cannot compile on cpu: InvalidCxxCompiler: No working C++ compiler found in torch._inductor.config.cpp.cxx"
    )


MIXED = """
variants:
  - {name: fast, tf32: true}
  - {name: plain}
  - {name: quick, compile: true}
"""


def test_a_run_leaves_out_what_the_device_cannot_do(
    shapes_suite: Callable[..., Path], tmp_path: Path, no_compiler: None, cli: Any
) -> None:
    suite = shapes_suite(2, MIXED)
    suite.write_text(suite.read_text().replace("}]", ", published: {AP: 50.0}, source: nowhere}]", 1))
    events: list[Event] = []
    fast, plain, quick = m2fbench.run(suite, output=tmp_path / "runs", listener=events.append)
    assert [r.status for r in (fast, plain, quick)] == ["unsupported", "complete", "unsupported"]
    assert fast.reason == "tf32: needs an NVIDIA GPU of compute capability 8.0 or newer, this runs on cpu"
    assert str(quick.reason).startswith("compile: torch cannot compile")
    assert (fast.measurements, fast.path, fast.within_tolerance) == ((), None, True)
    assert [c.comparable for c in fast.comparisons] == [False]
    assert [e.variant for e in events if e.kind == "unsupported"] == ["fast", "quick"]
    assert events.index(next(e for e in events if e.kind == "load")) > 2, "said before the work begins"
    assert not (tmp_path / "runs/test_shapes/tiny/fast").exists()


@pytest.mark.full
def test_the_command_line_says_so_and_succeeds(shapes_suite: Callable[..., Path], tmp_path: Path, cli: Any) -> None:
    suite = shapes_suite(2, "variants: [{name: fast, tf32: true}, {name: plain}]\n")
    done = cli("run", suite, "--output", tmp_path / "runs", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert "tiny · fast: unsupported: tf32: needs an NVIDIA GPU" in done.stdout
    assert done.stdout.count("not measured") == 1
    alone = cli("run", suite, "--output", tmp_path / "runs", "--device", "cpu", "--variant", "fast")
    assert alone.returncode == 2
    assert alone.stderr == (
        "m2fbench: error: no variant can run here: tf32: needs an NVIDIA GPU of compute capability 8.0 or newer, this runs on cpu; "
        "choose others, or --device\n"
    )


def test_a_variant_that_the_model_cannot_do_is_reported_too(shapes_suite: Callable[..., Path], tmp_path: Path) -> None:
    """Known only once the weights are there: the checkpoint is a Swin."""
    suite = shapes_suite(2, "variants: [{name: plain}, {name: folded, fuse: true}]\n")
    plain, folded = m2fbench.run(suite, output=tmp_path / "runs")
    assert (plain.status, folded.status) == ("complete", "unsupported")
    assert str(folded.reason).startswith("fuse: no batch norm")
    with pytest.raises(UnsupportedError, match="no variant can run here: fuse: no batch norm"):
        m2fbench.run(suite, output=tmp_path / "runs", variants=["folded"])


def test_a_compilation_that_fails_at_the_first_image_is_reported_too(
    shapes_suite: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The probe passes, and then the model is too much for the backend."""

    def broken(graph: Any, inputs: Any) -> Any:
        raise NotImplementedError("an operator is missing\nin detail")

    real = torch.compile
    monkeypatch.setattr(variants, "_no_compiler", lambda device: None)
    monkeypatch.setattr(shaping, "_parts", lambda module: [(module.model.transformer_module, True)])  # the quickest to trace
    monkeypatch.setattr(torch, "compile", lambda part, **options: real(part, backend=broken, **options))
    suite = shapes_suite(2, "variants: [{name: quick, compile: true}, {name: plain}]\n")
    before = state()
    quick, plain = m2fbench.run(suite, output=tmp_path / "runs")
    assert (quick.status, plain.status) == ("unsupported", "complete")
    assert str(quick.reason).startswith("compile: ")
    assert "an operator is missing" in str(quick.reason)
    assert "\n" not in str(quick.reason)
    assert state() == before


@pytest.mark.full
def test_compiled_parts_run_and_hooks_on_them_fire(resnet: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced whole, for every shape, by a backend that compiles nothing; inductor takes minutes, see test_gpu_variants."""
    real, graphs = torch.compile, []

    def traced(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", lambda part, **options: real(part, backend=traced, **options))
    model, plain = load(resnet, variant(compile=True), "cpu"), load(resnet, variant(), "cpu")
    names = [type(part).__name__ for part, _ in shaping._parts(model.module)]
    assert model.settings["compiled"] == names
    assert plain.settings["compiled"] == []
    fired = []
    for part, _ in shaping._parts(model.module):
        part.register_forward_hook(lambda part, given, made: fired.append((type(part).__name__, torch.compiler.is_compiling())))
    for x in images(2):
        for ours, theirs in zip(model.forward(x), plain.forward(x), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    assert len(graphs) >= 3
    assert fired == [(name, False) for name in names] * 2


def test_keys_at_their_default_leave_earlier_predictions_theirs() -> None:
    """The identities of a store written before there were any of the later keys."""
    assert variant().identity == {"dtype": "float32", "attention": "sdpa", "tf32": False}
    assert variant(dtype="bfloat16", protocol="transformers").identity == {"dtype": "bfloat16", "attention": "sdpa", "tf32": False}
    assert variant(lean=True, autocast="float16").identity == variant().identity | {"lean": True, "autocast": "float16"}
    later = set(Variant.model_fields) - {"name", "protocol", "tta", "dtype", "attention", "tf32"}
    values: dict[str, Any] = dict.fromkeys(later, True) | {"autocast": "float16", "decoder_layers": 0}
    for key in later:
        assert variant(**{key: values[key]}).identity[key] == values[key], "whatever is asked for is part of the identity"


def test_autocast_with_other_weights_is_refused(shapes_suite: Callable[..., Path]) -> None:
    path = shapes_suite(2, "variants: [{name: both, dtype: bfloat16, autocast: bfloat16}]\n")
    with pytest.raises(
        SuiteError, match=r"shapes.yaml:9: variants.0: expected 'dtype: float32' with 'autocast'.*got 'dtype: bfloat16'"
    ):
        load_suite(path)


def test_the_shipped_suite_has_every_kind_of_variant() -> None:
    """All but compile, which takes minutes on a CPU, and fewer decoder layers, which is no faster variant of the same and has a suite of its own."""
    suite = load_suite("shapes_variants")
    told = {key for v in suite.variants for key in (*v.identity, "protocol") if key not in ("attention", "compile")}
    assert told == set(Variant.model_fields) - {"name", "tta", "attention", "compile", "decoder_layers"}
    assert suite.variants[0].identity == variant().identity
