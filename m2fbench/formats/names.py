"""File names of an image's predictions and truth, and back: from a file name of anyone's making to the image it speaks of."""

import hashlib
import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

from m2fbench.errors import DatasetError, PredictionsError, shown
from m2fbench.types import ImageId

_UNSAFE = re.compile(r'^\.|[\x00-\x1f\x7f-\x9f\ud800-\udfff/\\:*?"<>|%]')
_LONGEST = 200  # bytes; file systems take 255, suffixes included
_HASH = 16  # hexadecimal digits


def file_stem(image_id: ImageId) -> str:
    """The name, without suffix, of an image's file: twelve digits for a number, as COCO names its images; a text as it is, with what
    is unsafe in a file name percent-encoded, and cut where it is too long, with a hash of the whole.

    Different texts have different names; a number may have that of a text (``refuse_shared_names``).
    """
    if isinstance(image_id, int):
        return f"{image_id:012d}"
    name = _UNSAFE.sub(lambda found: "".join(f"%{byte:02X}" for byte in found[0].encode("utf-8", "surrogatepass")), image_id) or "%"
    if len(name.encode()) <= _LONGEST:
        return name
    digest = hashlib.sha256(image_id.encode("utf-8", "surrogatepass")).hexdigest()[:_HASH]
    return f"{name.encode()[: _LONGEST - _HASH - 2].decode(errors='ignore')}%-{digest}"  # %- is in no name that is not cut


def refuse_shared_names(image_ids: Iterable[ImageId], where: object) -> None:
    """Raises DatasetError for two images whose files would have one name, as 139 and "000000000139" would. ``where`` begins it."""
    owners: dict[str, ImageId] = {}
    for image_id in image_ids:
        owner = owners.setdefault(file_stem(image_id), image_id)
        if owner != image_id:
            raise DatasetError(
                f"{where}: expected image ids that give files different names, got {shown(repr(owner))} and {shown(repr(image_id))}, both "
                f"{shown(file_stem(image_id))}.png; write all ids as numbers, or all as texts"
            )


class Match(NamedTuple):
    """The image that a file name speaks of. exact: the name is its id; else it only begins with it."""

    image_id: ImageId
    exact: bool


def name_matcher(image_ids: Iterable[ImageId]) -> Callable[[str], Match | None]:
    """A function from a path with ``/`` to the image it speaks of, by what precedes the suffix; None where it speaks of none.

    An id is written as by ``file_stem`` or plainly (139.png). A name may go on after the id, as in Cityscapes'
    ``<id>_gtFine_labelIds.png``, if what follows is not more of the same word or number: ``img_1_pred`` is not of ``img_10``.
    Of several ids the longest counts. An id with folders in it is looked for with the folders of the path. The function raises
    PredictionsError for a name that is one image's plainly and another's by ``file_stem``.
    """
    known: dict[str, ImageId] = {}
    shared: dict[str, ImageId] = {}
    for image_id in image_ids:
        for name in {str(image_id), file_stem(image_id)}:
            if known.setdefault(name, image_id) != image_id:
                shared[name] = image_id

    def owner(name: str, path: str) -> ImageId:
        if name in shared:
            one, other = (shown(repr(image_id)) for image_id in (known[name], shared[name]))
            raise PredictionsError(
                f"{shown(path)}: is the name of two images, {one} and {other}; give the dataset's images ids that are less alike"
            )
        return known[name]

    lengths = sorted({len(name) for name in known}, reverse=True)
    depth = 1 + max((name.count("/") for name in known), default=0)

    def match(path: str) -> Match | None:
        parts = path.replace("\\", "/").rpartition(".")[0].split("/")
        for taken in range(min(depth, len(parts)), 0, -1):
            stem = "/".join(parts[-taken:])
            if stem in known:
                return Match(owner(stem, path), True)
            for length in lengths:
                if stem[:length] in known and _ends(stem, length):
                    return Match(owner(stem[:length], path), False)
        return None

    return match


def _ends(stem: str, length: int) -> bool:
    """Whether a word or number ends after ``length`` characters."""
    last, following = stem[length - 1 : length], stem[length : length + 1]
    return not following.isalnum() or (last.isdecimal() and not following.isdecimal())
