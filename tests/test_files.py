"""What tells one state of many files from another."""

import io
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from m2fbench import files
from m2fbench.files import pngs_sha256
from m2fbench.formats import png


def written(pixels: np.ndarray, kind: str) -> bytes:
    """PNG bytes, in which the length does not depend on the pixels."""
    content = zlib.compress(b"".join(b"\0" + row.tobytes() for row in pixels), 0)
    texts = png._chunk(b"tEXt", b"date:create\0" + b"x" * 40) + png._chunk(b"tEXt", b"date:modify\0" + b"x" * 40)
    size = len(content) if kind == "one IDAT" else len(content) - 2 if kind == "a short last IDAT" else 100
    data = b"".join(png._chunk(b"IDAT", content[at : at + size]) for at in range(0, len(content), size))
    header = png._chunk(b"IHDR", b"".join(n.to_bytes(4, "big") for n in pixels.shape[::-1]) + bytes([8, 0, 0, 0, 0]))
    return png.SIGNATURE + header + data + (texts if kind == "texts after it" else b"") + png._chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["one IDAT", "many IDATs", "a short last IDAT", "texts after it"])
@pytest.mark.parametrize("size", [20, 90])  # shorter and longer than what is read at once
def test_one_pixel_tells_two_pngs_apart(tmp_path: Path, kind: str, size: int) -> None:
    pixels = np.random.default_rng(size).integers(0, 256, (size, size)).astype(np.uint8)
    path, states = tmp_path / "a.png", set()
    for changed in (False, True):
        pixels[3, 4] ^= changed
        path.write_bytes(written(pixels, kind))
        np.testing.assert_array_equal(np.array(Image.open(path)), pixels)
        states.add(pngs_sha256([path]))
        path.write_bytes(path.read_bytes())
        states.add(pngs_sha256([path]))
    assert len(states) == 2


def test_the_quick_way_is_the_other_way(tmp_path: Path) -> None:
    """Whether the check sums are found from the end or from the front, they are those of the last IDAT chunk."""
    pixels = np.zeros((40, 50), np.uint8)
    pixels[3:9, 4] = 7
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    for content in (buffer.getvalue(), png.encode(pixels), written(pixels, "many IDATs")):
        (tmp_path / "a.png").write_bytes(content)
        with (tmp_path / "a.png").open("rb") as file:
            found = files._sums_at_end(file, len(content))
            assert found is not None
            assert found == files._sums_found(file)
    assert found[:4] == zlib.adler32(b"".join(b"\0" + row.tobytes() for row in pixels)).to_bytes(4, "big")


@pytest.mark.parametrize(
    "damage", [lambda c: b"", lambda c: c[:-1], lambda c: c[: len(c) // 2], lambda c: b"text" * 2000, lambda c: c.replace(b"IDAT", b"IDAX")]
)  # fmt: skip
def test_what_is_no_png_counts_by_its_content(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path, content = tmp_path / "a.png", damage(png.encode(np.full((9, 9), 5, np.uint8)))
    path.write_bytes(content)
    before = pngs_sha256([path])
    for at in range(0, len(content), 7):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        assert pngs_sha256([path]) != before
    path.unlink()
    assert pngs_sha256([path]) != before
