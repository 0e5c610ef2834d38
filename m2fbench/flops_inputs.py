"""Over which inputs FLOPs are counted, and with which heads: what a suite says, the sizes of its dataset's images, or one size."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from m2fbench.errors import DatasetError, SuiteError, shown
from m2fbench.scoring import open_dataset
from m2fbench.sections import ProtocolSection, Row
from m2fbench.suite import HEADS, Suite, datasets, load_suite, suite_names
from m2fbench.types import Head, Size

if TYPE_CHECKING:
    from m2fbench.models.architecture import Architecture
    from m2fbench.models.preprocess import Geometry

IMAGES = 100  # over which the paper averages
MAX_SIZES_BYTES, MAX_EDGE = 64 << 20, 1 << 16
_BUNDLED = "coco_val2017_sizes.json"


class Wish(Protocol):
    """What a user asks for beyond the suite; see ``m2fbench.flops.FlopsRequest``."""

    @property
    def suite(self) -> str | None: ...
    @property
    def data(self) -> Path | None: ...
    @property
    def sizes(self) -> Path | None: ...
    @property
    def size(self) -> Size | None: ...
    @property
    def images(self) -> int | None: ...


@dataclass(frozen=True)
class Inputs:
    """geometries: of each image. described: which they are, for reading. as_published: whether they are those that the suite says, all of them, so
    that its published figures speak of them."""

    geometries: tuple["Geometry", ...]
    described: str
    as_published: bool = False
    notes: tuple[str, ...] = ()

    def at(self, fixed: Size | None) -> "Inputs":
        """The same for a model that takes one size only: then that is the one input."""
        from m2fbench.models.preprocess import Geometry

        if fixed is None or all(geometry.padded == fixed for geometry in self.geometries):
            return self
        only = f"one image of {size_text(fixed)}, the only input that the model takes"
        return Inputs((Geometry(fixed, fixed, fixed),), only, notes=(f"counted at its own input size, not over {self.described}",))


@dataclass(frozen=True)
class Setting:
    """How a checkpoint is run. suite: whose settings these are, None for nobody's. heads: those whose post-processing is counted; with none, none is.
    resize, detections: as in a suite's protocol. notes: what is to be known of a setting that no suite says."""

    suite: str | None
    heads: tuple[Head, ...]
    resize: Literal["before", "after"]
    detections: int
    inputs: Inputs
    notes: tuple[str, ...] = ()


def size_text(size: Size) -> str:
    """(height, width) for reading, in the order in which ``--size`` takes it."""
    return f"{size[0]}x{size[1]} (height x width)"


def setting_of_row(suite: Suite, row: Row, wish: Wish) -> Setting:
    """A row of a suite, at its own test sizes. Raises M2FBenchError where the images' sizes are not to be had."""
    return _setting(suite, suite.protocol_of(row), wish)


def setting_for(architecture: "Architecture", wish: Wish) -> tuple[Setting, Row | None]:
    """For a checkpoint named by itself, and the row that it stands in. Where no suite is its own, one size is enough: then post-processing is
    that of the task which its config says. Raises SuiteError where several suites could be its own, or none and no size is known."""
    from m2fbench.models.published import like_row

    suite = load_suite(wish.suite) if wish.suite else _suite_of(architecture)
    if suite is None:
        return _of_no_suite(architecture, wish), None
    own = _row_of(architecture, suite)
    like = own or like_row(architecture, suite)
    protocol = suite.protocol_of(like) if like else suite.protocol
    if not wish.suite and architecture.test_size:
        low, high = architecture.test_size
        protocol = protocol.model_copy(update={"min_size": low, "max_size": high})
    return _setting(suite, protocol, wish), own


def _row_of(architecture: "Architecture", suite: Suite) -> Row | None:
    return next((row for row in suite.checkpoints if architecture.reference in (row.checkpoint, row.architecture)), None)


def _suite_of(architecture: "Architecture") -> Suite | None:
    """The first shipped suite whose classes and task are the checkpoint's own, or else one that it stands in; None where there is none."""
    from m2fbench.models.published import published_labels

    suites = [load_suite(name) for name in suite_names()]
    known = published_labels(architecture.labels)
    fitting = [s for s in suites if known and s.labels == known and architecture.task in (None, s.task)]
    tasks = {suite.task: suite for suite in reversed(fitting)}
    if len(tasks) == 1:
        return fitting[0]
    own = next((suite for suite in suites if _row_of(architecture, suite)), None)
    if own is not None:
        return own
    if tasks:
        choices = " or ".join(f"--suite {suite.suite}" for suite in sorted(tasks.values(), key=lambda s: s.suite))
        raise SuiteError(f"{architecture.reference}: its classes are those of more than one suite; say {choices}")
    return None


def _of_no_suite(architecture: "Architecture", wish: Wish) -> Setting:
    size = wish.size or architecture.input_size
    known = next((head for head in HEADS if head == architecture.task), None)
    example = f"--suite coco_{known or 'instance'}"
    if size is None:
        raise SuiteError(
            f"{architecture.reference}: its {len(architecture.labels)} classes are no shipped suite's, which would say at what sizes it is tested; "
            f"pass --size HEIGHTxWIDTH, or a suite whose sizes and task are its own, as in {example}"
        )
    if known is None:
        note = f"no suite is its own, so the model alone was counted, without post-processing; --suite adds that, as in {example}"
        return Setting(None, (), "before", 100, _one_size(size), (note,))
    # the original brings masks to the image's size first wherever instance or panoptic segmentation is on
    resize: Literal["before", "after"] = "after" if known == "semantic" else "before"
    note = f"no suite is its own; its config says that its task is {known}, and the post-processing is that task's"
    return Setting(None, HEADS if known == "panoptic" else (known,), resize, 100, _one_size(size), (note,))


def _one_size(size: Size) -> Inputs:
    from m2fbench.models.preprocess import Geometry, padded_size

    return Inputs((Geometry(size, size, padded_size(size)),), f"one image of {size_text(size)}")


def _setting(suite: Suite, protocol: ProtocolSection, wish: Wish) -> Setting:
    heads = suite.timed_heads["paper"]  # the published count is over all that the original configuration runs
    return Setting(suite.suite, heads, protocol.semantic_resize, protocol.detections, _inputs(suite, protocol, wish))


def _inputs(suite: Suite, protocol: ProtocolSection, wish: Wish) -> Inputs:
    from m2fbench.models.preprocess import Geometry, padded_size, resized_size

    if wish.size is not None:
        return _one_size(wish.size)
    if suite.flops.inputs == "crop" and wish.sizes is None and wish.images is None:
        crop = protocol.min_size, protocol.min_size
        return Inputs((Geometry(crop, crop, padded_size(crop)),), f"one image of the crop's size, {size_text(crop)}", True)
    asked = wish.images or suite.flops.images
    wanted = asked or IMAGES
    sizes, source = _sizes(suite, wish, wanted)
    shortest, longest = protocol.min_size, protocol.max_size
    made = []
    for size in sizes[:wanted]:
        resized = resized_size(size, shortest, longest)
        if min(resized) < 1:
            raise DatasetError(f"{source}: an image of {size_text(size)} is too long and thin for {shortest}/{longest}")
        made.append(Geometry(size, resized, padded_size(resized)))
    which = (
        f"the first {len(made)} images by ascending id"
        if len(sizes) > len(made) or wanted == len(made)
        else f"all {len(made)} images"
    )
    notes = (f"{asked} images were asked for; {source} has {len(made)}",) if asked and len(made) < asked else ()
    return Inputs(tuple(made), f"{which} of {source}, at {shortest}/{longest}", wish.images is None and len(made) == wanted, notes)


def _sizes(suite: Suite, wish: Wish, wanted: int) -> tuple[Sequence[Size], str]:
    """(height, width) of the images by ascending id, at least ``wanted`` where there are as many; and where they are from."""
    if wish.sizes is not None:
        return read_sizes(wish.sizes), wish.sizes.name
    if wish.data is None and _is_coco_val2017(suite):
        document = json.loads((Path(__file__).parent / "datasets" / _BUNDLED).read_bytes())
        sizes = [(height, width) for _, height, width in document["sizes"]]
        if wanted > len(sizes):
            raise DatasetError(
                f"{wanted} images: the sizes of the first {len(sizes)} of COCO val2017 travel with m2fbench; for more pass --data or --sizes"
            )
        return sizes, "COCO val2017"
    if wish.data is None and datasets.get(suite.dataset.name).needs_data is not None:
        raise DatasetError(
            f"{suite.suite}: FLOPs are counted over its dataset's images: pass --data (or set M2FBENCH_DATA), a list of their sizes with --sizes, or "
            f"one size with --size HEIGHTxWIDTH"
        )
    dataset = open_dataset(suite, wish.data)
    return [example.size for example in dataset.examples()[:wanted]], f"{suite.dataset.name}"


def _is_coco_val2017(suite: Suite) -> bool:
    options: Any = datasets.get(suite.dataset.name).Options(**suite.dataset.options)
    return suite.dataset.name in ("coco_instance", "coco_panoptic") and options.images == "val2017"


def read_sizes(path: Path) -> list[Size]:
    """(height, width) by ascending id from a JSON list of [id, height, width]. Raises DatasetError with one line."""
    try:
        if path.stat().st_size > MAX_SIZES_BYTES:
            raise DatasetError(f"{path}: expected a list of sizes, got a file of {path.stat().st_size:,} bytes")
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error.strerror or error}; check the path and its permissions") from error
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path}: not valid JSON ({shown(error)}); expected [[id, height, width], ...]") from error
    if not isinstance(document, list) or not document:
        raise DatasetError(f"{path}: expected [[id, height, width], ...], got {shown(json.dumps(document), 60)}")
    found: dict[Any, Size] = {}
    for index, entry in enumerate(document):
        match entry:
            case [int() | str() as name, int() as height, int() as width] if not any(isinstance(v, bool) for v in entry):
                pass
            case _:
                raise DatasetError(f"{path}: [{index}]: expected [id, height, width], got {shown(json.dumps(entry), 60)}")
        if not (0 < height < MAX_EDGE and 0 < width < MAX_EDGE):
            raise DatasetError(f"{path}: [{index}]: expected sizes in pixels from 1 to {MAX_EDGE - 1}, got {height} and {width}")
        if name in found:
            raise DatasetError(f"{path}: [{index}]: image {shown(name)} is there twice")
        found[name] = height, width
    if len({type(name) for name in found}) > 1:
        raise DatasetError(f"{path}: expected ids that are all numbers or all texts, which have an order; got both")
    return [found[name] for name in sorted(found)]
