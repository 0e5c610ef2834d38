"""Datasets from a server on loopback: what breaks off goes on, what is not the published file is refused, hostile archives too."""

import contextlib
import errno
import hashlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_download import Server, server  # noqa: F401  (a fixture)

from m2fbench import acquire, unpacking
from m2fbench.acquire import Step, fetch_dataset, find_source, folder_for
from m2fbench.download import cache_folder
from m2fbench.errors import DatasetError
from m2fbench.unpacking import Wanted, unpack

GENERATOR = random.Random(4)
IMAGES = {f"val2017/{k:012d}.jpg": GENERATOR.randbytes(20_000 + k) for k in range(1, 21)}
MASKS = {f"panoptic_val2017/{k:012d}.png": bytes([k]) * 3_000 for k in range(1, 21)}
LABELS = {f"annotations_instance/validation/ADE_val_{k:08d}.png": bytes([k]) * 5_000 for k in range(1, 6)}


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return memory.getvalue()


def tarred(files: dict[str, bytes], members: tuple[tarfile.TarInfo, ...] = ()) -> bytes:
    memory = io.BytesIO()
    with tarfile.open(fileobj=memory, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for info in members:
            archive.addfile(info)
    return memory.getvalue()


IMAGES_ZIP = zipped({"val2017/": b"", **IMAGES, "val2017/readme.txt": b"no image"}, zipfile.ZIP_STORED)
PANOPTIC_ZIP = zipped({
    "annotations/panoptic_val2017.json": b"{}",
    "annotations/panoptic_train2017.json": b"not wanted",
    "annotations/panoptic_val2017.zip": zipped({**MASKS, "__MACOSX/panoptic_val2017/._000000000001.png": b"junk"}),
})  # fmt: skip
LABELS_TAR = tarred(LABELS | {"annotations_instance/training/ADE_train_00000001.png": b"not wanted"})
NESTED = {"pattern": "panoptic_val2017/*.png", "folder": "annotations/panoptic_val2017"}
ARCHIVES: dict[str, tuple[bytes, list[dict[str, Any]]]] = {
    "/zips/val2017.zip": (IMAGES_ZIP, [{"pattern": "val2017/*.jpg", "folder": "val2017"}]),
    "/annotations/panoptic.zip": (PANOPTIC_ZIP, [
        {"pattern": "annotations/panoptic_val2017.json", "folder": "annotations"},
        {"pattern": "annotations/panoptic_val2017.zip", "folder": "annotations", "nested": [NESTED]},
    ]),
    "/labels.tar": (LABELS_TAR, [{"pattern": "annotations_instance/validation/*.png", "folder": "labels"}]),
}  # fmt: skip
THERE = (
    IMAGES
    | {f"annotations/{name}": content for name, content in MASKS.items()}
    | {f"labels/{name.rsplit('/', 1)[1]}": content for name, content in LABELS.items()}
    | {"annotations/panoptic_val2017.json": b"{}"}
)


def catalogue_of(**changes: Any) -> dict[str, Any]:
    archives = [
        {
            "url": f"http://official.example{path}", "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest(),
            "source": "a list", "readers": ["coco_panoptic"], "unpacked_at_most": 10_000_000, "wanted": wanted, **changes,
        }
        for path, (content, wanted) in ARCHIVES.items()
    ]  # fmt: skip
    return {"little": {"title": "Little", "folder": "coco", "archives": archives}}


@pytest.fixture
def little(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Server]:  # noqa: F811
    """Put a small dataset of three archives on the server, and on the list of what can be fetched; ``changes`` to the list."""

    def make(**changes: Any) -> Server:
        for path, (content, _) in ARCHIVES.items():
            server.files[path] = content
        file = tmp_path / f"archives-{len(list(tmp_path.glob('archives-*')))}.json"
        file.write_text(json.dumps(catalogue_of(**changes)))
        monkeypatch.setattr(acquire, "CATALOGUE", file)
        monkeypatch.setenv(acquire.MIRROR, server.url)
        return server

    return make


def content_of(target: Path) -> dict[str, bytes]:
    """Every file of the target but the notes."""
    files = (path for path in target.rglob("*") if path.is_file() and acquire.NOTES not in path.parts)
    return {path.relative_to(target).as_posix(): path.read_bytes() for path in files}


def test_a_dataset_arrives_whole_and_only_once(little: Callable[..., Server], tmp_path: Path) -> None:
    web, steps = little(), list[Step]()
    files = fetch_dataset("little", tmp_path / "coco", steps.append)
    assert content_of(tmp_path / "coco") == THERE
    assert sorted(files) == sorted(tmp_path / "coco" / name for name in THERE)
    for kind in ("download", "unpack"):
        of_first = [s for s in steps if s.kind == kind and s.archive == "val2017.zip"]
        assert of_first[0].done == 0
        assert of_first[-1].done == of_first[-1].total > 400_000
    assert not [path for path in cache_folder().rglob("*") if path.is_file() and path.stat().st_size]  # archives are gone
    assert len(web.requests) == 3
    times = {path: path.stat().st_mtime_ns for path in files}
    assert fetch_dataset("little", tmp_path / "coco") == files
    assert len(web.requests) == 3
    assert times == {path: path.stat().st_mtime_ns for path in files}


def test_archives_are_kept_where_asked(little: Callable[..., Server], tmp_path: Path) -> None:
    little()
    fetch_dataset("little", tmp_path / "coco", keep_archives=True)
    kept = {p.name: p.read_bytes() for p in cache_folder().rglob("*") if p.suffix in (".zip", ".tar")}
    assert kept == {path.rsplit("/", 1)[1]: content for path, (content, _) in ARCHIVES.items()}


def test_a_file_that_is_damaged_or_deleted_comes_again_alone(little: Callable[..., Server], tmp_path: Path) -> None:
    web, target = little(), tmp_path / "coco"
    files = fetch_dataset("little", target)
    times = {path: path.stat().st_mtime_ns for path in files}
    damaged, gone = target / "val2017/000000000003.jpg", target / "labels/ADE_val_00000002.png"
    damaged.write_bytes(bytes(damaged.stat().st_size))
    gone.unlink()
    web.requests.clear()
    fetch_dataset("little", target)
    assert content_of(target) == THERE
    assert len(web.requests) == 2  # the archives of these two
    assert {path for path in files if path.stat().st_mtime_ns != times[path]} == {damaged, gone}


def test_broken_off_it_goes_on_where_it_was(little: Callable[..., Server], tmp_path: Path) -> None:
    web = little()
    web.break_after = [100_000, 0, 0, 0, 0]
    with pytest.raises(DatasetError, match=r"val2017\.zip: cannot be downloaded: .*broke off; 0\.1 MB are kept"):
        fetch_dataset("little", tmp_path / "coco")
    web.requests.clear()
    fetch_dataset("little", tmp_path / "coco")
    assert web.requests == ["bytes=100000-", None, None]
    assert content_of(tmp_path / "coco") == THERE


def test_a_server_without_ranges_and_one_whose_file_changes(little: Callable[..., Server], tmp_path: Path) -> None:
    web = little()
    web.ranges = False
    web.break_after = [100_000]
    fetch_dataset("little", tmp_path / "one")
    assert content_of(tmp_path / "one") == THERE
    web.ranges = True
    web.files["/zips/val2017.zip"] = bytes(len(IMAGES_ZIP))
    web.break_after = [100_000, 0, 0, 0, 0]
    with pytest.raises(DatasetError, match="are kept"):
        fetch_dataset("little", tmp_path / "two")
    web.files["/zips/val2017.zip"] = IMAGES_ZIP
    fetch_dataset("little", tmp_path / "two")
    assert content_of(tmp_path / "two") == THERE


def test_another_file_than_the_published_one_is_refused_and_not_kept(little: Callable[..., Server], tmp_path: Path) -> None:
    web = little()
    other = zipped({"val2017/000000000001.jpg": b"forged"})
    web.files["/zips/val2017.zip"] = other + bytes(len(IMAGES_ZIP) - len(other))  # of the right size
    with pytest.raises(DatasetError, match=r"has SHA256 \w{12}\.\.\., expected \w{12}; it was deleted.* put it into .*coco"):
        fetch_dataset("little", tmp_path / "coco")
    web.files["/zips/val2017.zip"] = other
    with pytest.raises(DatasetError, match=rf"the server has {len(other):,} bytes, expected {len(IMAGES_ZIP):,}"):
        fetch_dataset("little", tmp_path / "coco")
    web.lengths = False
    with pytest.raises(DatasetError, match=rf"{len(other):,} bytes arrived, expected {len(IMAGES_ZIP):,}; it was not kept"):
        fetch_dataset("little", tmp_path / "coco")
    web.files["/zips/val2017.zip"] = IMAGES_ZIP + b"more"
    with pytest.raises(DatasetError, match="sends more than"):
        fetch_dataset("little", tmp_path / "coco")
    assert not content_of(tmp_path / "coco")
    assert not [path for path in cache_folder().rglob("*") if path.is_file() and path.stat().st_size]


def test_without_a_published_checksum_the_one_that_arrived_is_told_and_recorded(
    little: Callable[..., Server], tmp_path: Path
) -> None:
    little(sha256=None, source=None, bytes=None)
    steps: list[Step] = []
    fetch_dataset("little", tmp_path / "coco", steps.append)
    notes = [step.message for step in steps if step.kind == "note"]
    assert notes[0] == f"val2017.zip: no published checksum; sha256 of what arrived: {hashlib.sha256(IMAGES_ZIP).hexdigest()}"
    recorded = json.loads((tmp_path / "coco" / acquire.NOTES / "val2017.zip.json").read_text())
    assert recorded["warning"] == notes[0]
    assert len(recorded["files"]) == len(IMAGES)


def test_an_archive_of_ones_own_is_used_and_stays(little: Callable[..., Server], tmp_path: Path) -> None:
    web, target = little(), tmp_path / "coco"
    target.mkdir()
    (target / "val2017.zip").write_bytes(IMAGES_ZIP[:-1])
    with pytest.raises(DatasetError, match=r"val2017\.zip: has SHA256 .*delete it"):
        fetch_dataset("little", target)
    (target / "val2017.zip").write_bytes(IMAGES_ZIP)
    fetch_dataset("little", target)
    assert len(web.requests) == 2
    assert content_of(target) == THERE | {"val2017.zip": IMAGES_ZIP}


def test_addresses(little: Callable[..., Server], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    little()
    archive = find_source("little")[1][0]
    monkeypatch.setenv(acquire.MIRROR, "https://mirror.example/data/")
    assert acquire._address(archive)[0] == "https://mirror.example/data/zips/val2017.zip"
    monkeypatch.setenv(acquire.MIRROR, "http://[bad")
    with pytest.raises(DatasetError, match="M2FBENCH_MIRROR: expected the beginning of an address"):
        fetch_dataset("little", tmp_path / "coco")
    little(sha256=None)
    monkeypatch.setenv(acquire.MIRROR, "http://mirror.example")  # neither protected nor checked
    with pytest.raises(DatasetError, match="expected an https address, got http"):
        fetch_dataset("little", tmp_path / "coco")
    monkeypatch.delenv(acquire.MIRROR)
    assert acquire._address(archive) == (archive.url, ("official.example",))


def test_names_and_folders(tmp_path: Path) -> None:
    assert [archive.name for archive in find_source("coco-val2017")[1]] == [
        "val2017.zip", "annotations_trainval2017.zip", "panoptic_annotations_trainval2017.zip",
    ]  # fmt: skip
    assert len(find_source("coco_instance")[1]) == 2
    assert [archive.name for archive in find_source("ade20k")[1]] == ["ADEChallengeData2016.zip", "annotations_instance.tar"]
    with pytest.raises(DatasetError, match=r"expected one of ade20k, .*, got 'ade20'.*did you mean 'ade20k'"):
        find_source("ade20")
    with pytest.raises(DatasetError, match="dataset shapes is built in"):
        find_source("shapes")
    assert folder_for("coco-val2017", tmp_path) == tmp_path / "coco"
    assert folder_for("coco-val2017", tmp_path / "coco") == tmp_path / "coco"
    assert folder_for("ade20k", tmp_path) == tmp_path / "ADEChallengeData2016"
    (tmp_path / "val2017").mkdir()
    (tmp_path / "val2017/1.jpg").touch()
    assert folder_for("coco_instance", tmp_path) == tmp_path
    assert folder_for("ade20k", tmp_path) == tmp_path / "ADEChallengeData2016"


@pytest.mark.parametrize("name", ["cityscapes", "mapillary"])
def test_a_dataset_behind_a_login_says_what_to_do(name: str) -> None:
    from m2fbench.suite import datasets

    with pytest.raises(DatasetError) as caught:
        fetch_dataset(name, Path("/nowhere"))
    assert str(datasets.get(name).needs_data) in str(caught.value)
    assert "account" in str(caught.value)


def test_every_archive_says_who_published_its_checksum() -> None:
    for source in acquire.sources().values():
        for archive in source.archives:
            assert archive.sha256 is None or (len(archive.sha256) == 64 and archive.source), archive.url
            assert archive.url.startswith("http")


WANTED = (Wanted("val2017/*.jpg", "val2017"),)


def unpacked(archive: bytes, tmp_path: Path, limit: int = 10_000_000, wanted: tuple[Wanted, ...] = WANTED) -> dict[str, bytes]:
    (tmp_path / "archive").write_bytes(archive)
    unpack(tmp_path / "archive", tmp_path / "target", wanted, limit=limit, aside=tmp_path)
    return content_of(tmp_path / "target")


def special(kind: bytes, name: str = "val2017/2.jpg") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, "/etc/passwd"
    return info


def linked() -> bytes:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        info = zipfile.ZipInfo("val2017/1.jpg")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    return memory.getvalue()


GOOD = {"val2017/1.jpg": b"good"}
HOSTILE = {
    "zip up": zipped(GOOD | {"val2017/../../evil.jpg": b"x"}),
    "zip absolute": zipped(GOOD | {"/etc/evil": b"x"}),
    "zip backslash": zipped(GOOD | {"val2017\\..\\evil.jpg": b"x"}),
    "zip terminal": zipped(GOOD | {"val2017/\x1b]0;pwn\x07.jpg": b"x"}),
    "zip link": linked(),
    "tar up": tarred(GOOD | {"../evil": b"x"}),
    "tar absolute": tarred(GOOD | {"/etc/evil": b"x"}),
    "tar link": tarred(GOOD, (special(tarfile.SYMTYPE),)),
    "tar hard link": tarred(GOOD, (special(tarfile.LNKTYPE),)),
    "tar link of a folder": tarred({}, (special(tarfile.SYMTYPE, "val2017"),)),
    "tar device": tarred(GOOD, (special(tarfile.CHRTYPE),)),
    "tar pipe": tarred(GOOD, (special(tarfile.FIFOTYPE),)),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_members_are_refused_before_anything_is_written(name: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="it was not unpacked") as caught:
        unpacked(HOSTILE[name], tmp_path)
    assert str(caught.value).isprintable()
    assert {path.name for path in tmp_path.rglob("*")} == {"archive"}
    assert not (tmp_path.parent / "evil.jpg").exists()


def test_more_than_can_be_is_refused(tmp_path: Path) -> None:
    bomb = zipped({f"val2017/{k}.jpg": bytes(1_000_000) for k in range(11)})
    assert len(bomb) < 20_000
    with pytest.raises(DatasetError, match="declares 11,000,000 bytes of files, expected at most 10,000,000"):
        unpacked(bomb, tmp_path)
    nested = zipped({"a/in.zip": bomb})
    with pytest.raises(DatasetError, match="declares 11,000,000 bytes"):
        unpacked(nested, tmp_path, wanted=(Wanted("a/*.zip", "", WANTED),))
    lying = bytearray(zipped({"val2017/1.jpg": bytes(1_000_000)}))
    for offset in (lying.index(b"PK\x03\x04") + 22, lying.index(b"PK\x01\x02") + 24):  # the declared size, in both places
        lying[offset : offset + 4] = (1000).to_bytes(4, "little")
    with pytest.raises(DatasetError, match="is no whole archive"):
        unpacked(bytes(lying), tmp_path)
    assert not content_of(tmp_path / "target")


def test_damaged_archives_are_one_line(tmp_path: Path) -> None:
    good, tar = zipped(GOOD | {"val2017/2.jpg": GENERATOR.randbytes(9000)}), tarred({"val2017/1.jpg": GENERATOR.randbytes(9000)})
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 0xFF
    odd = [b"", b"<html>", good[:-30], good[:50], bytes(flipped), tar[:5000], zipped(GOOD, zipfile.ZIP_BZIP2)]
    for content in odd:
        with pytest.raises(DatasetError, match=r"is no whole archive|it is another archive") as caught:
            unpacked(content, tmp_path)
        assert "\n" not in str(caught.value)
    assert b"good" not in [c for n, c in content_of(tmp_path / "target").items() if n.endswith("2.jpg")]
    with pytest.raises(DatasetError, match=r"expected files val2017/\*\.jpg in it, got none; it is another archive"):
        unpacked(zipped({"val2014/1.jpg": b""}), tmp_path)


@pytest.mark.full
def test_random_damage_never_escapes(tmp_path: Path) -> None:
    generator = random.Random(11)
    for good in (zipped(GOOD | {"val2017/2.jpg": generator.randbytes(3000)}), tarred(GOOD | {"val2017/2.jpg": bytes(3000)})):
        for _ in range(300):
            damaged = bytearray(good)
            for _ in range(generator.choice((1, 1, 2, 8))):
                damaged[generator.randrange(len(good))] = generator.randrange(256)
            with contextlib.suppress(DatasetError):
                unpacked(bytes(damaged[: generator.choice((len(good), generator.randrange(len(good))))]), tmp_path)
            outside = {path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("*")}
            assert outside <= {"archive", "target"}


def test_a_full_disk_and_a_folder_that_cannot_be_written(
    little: Callable[..., Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    little()
    (tmp_path / "blocked").write_text("")
    with pytest.raises(DatasetError, match=r"blocked.*: cannot be read or written: (Not a directory|File exists): mend that"):
        fetch_dataset("little", tmp_path / "blocked")
    target = tmp_path / "coco"
    real, written = zlib.crc32, []

    def full(data: bytes, value: int = 0) -> int:
        written.append(len(data))
        if len(written) > 5:
            raise OSError(errno.ENOSPC, "No space left on device", str(target / "x"))
        return real(data, value)

    with monkeypatch.context() as patch:
        patch.setattr(unpacking.zlib, "crc32", full)
        with pytest.raises(DatasetError, match="cannot be written: the disk is full: free space; the same command goes on"):
            fetch_dataset("little", target)
    (target / "val2017/000000000001.jpg").write_bytes(b"")
    with monkeypatch.context() as patch:
        patch.setattr(unpacking.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 100}))
        with pytest.raises(DatasetError, match="the disk is full"):
            fetch_dataset("little", target)
    fetch_dataset("little", target)
    assert content_of(target) == THERE


FETCH = """
import sys, time
from pathlib import Path
from m2fbench import acquire, unpacking
acquire.CATALOGUE, unpacking.CHUNK = Path(sys.argv[1]), 1000
rename = Path.replace
Path.replace = lambda self, target: (time.sleep(float(sys.argv[3])), rename(self, target))  # so that there is time to be killed
acquire.fetch_dataset("little", Path(sys.argv[2]))
"""


def start(target: Path, pause: float = 0.0) -> "subprocess.Popen[bytes]":
    arguments = [sys.executable, "-c", FETCH, str(acquire.CATALOGUE), str(target), str(pause)]
    return subprocess.Popen(arguments, stderr=subprocess.PIPE, env=dict(os.environ))


@pytest.mark.full
def test_two_at_once_download_once(little: Callable[..., Server], tmp_path: Path) -> None:
    web = little()
    web.pause = 0.01
    for process in [start(tmp_path / "coco") for _ in range(2)]:
        assert process.communicate(timeout=60)[1] == b""
        assert process.returncode == 0
    assert content_of(tmp_path / "coco") == THERE
    assert len(web.requests) == 3


def downloading(target: Path) -> bool:
    return any(path.stat().st_size for path in cache_folder().rglob("*.part"))


def unpacking_(target: Path) -> bool:
    return 0 < len(content_of(target)) < len(THERE)


def noting(target: Path) -> bool:
    return 0 < len(list((target / acquire.NOTES).glob("*.json"))) < len(ARCHIVES)


@pytest.mark.slow
def test_killed_at_any_moment_the_same_command_ends_whole(little: Callable[..., Server], tmp_path: Path) -> None:
    """Kills once it is seen to download, to unpack and to have noted an archive, and a little later; then it runs to its end."""
    web, target, generator = little(), tmp_path / "coco", random.Random(5)
    web.pause = 0.06
    for _ in range(4):
        shutil.rmtree(target, ignore_errors=True)
        shutil.rmtree(cache_folder(), ignore_errors=True)
        for state in (downloading, unpacking_, noting):
            process = start(target, 0.02)
            while process.poll() is None and not seen(state, target):
                time.sleep(0.002)
            assert process.poll() is None, f"it ended before it was seen {state.__name__}: {process.communicate()[1].decode()}"
            time.sleep(generator.random() * 0.1)
            process.send_signal(signal.SIGKILL)
            process.communicate()
            for name, content in content_of(target).items():
                assert Path(name).name.startswith(".") or content == THERE[name], name  # a name means a whole file
    fetch_dataset("little", target)
    assert content_of(target) == THERE
    assert {path.suffix for path in (target / acquire.NOTES).iterdir()} == {".json", ".lock"}  # nothing is left lying about


def seen(state: Callable[[Path], bool], target: Path) -> bool:
    """Whether it is in that state; not where files come and go while one looks."""
    try:
        return state(target)
    except FileNotFoundError:
        return False


def test_the_command_line(little: Callable[..., Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    from m2fbench import cli

    web = little()

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["m2fbench", "datasets", *arguments])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = capsys.readouterr()
        return int(stop.value.code or 0), out, err

    status, out, err = call("fetch", "little", "--data", str(tmp_path), "--keep-archives")
    assert (status, err) == (0, "")
    assert f"{len(THERE)} files of little are in {tmp_path / 'coco'}" in out
    assert "downloading val2017.zip: 0.4 of 0.4 MB" in out
    assert "unpacking labels.tar" in out
    status, out, _ = call("fetch", "little", "--data", str(tmp_path))
    assert status == 0
    assert "val2017.zip: its 20 files are here already" in out
    web.statuses = [404]
    monkeypatch.setenv("M2FBENCH_CACHE", str(tmp_path / "other"))
    for arguments, message in (
        (["fetch", "little", "--data", str(tmp_path / "elsewhere")], "the server answers 404"),
        (["fetch", "litle", "--data", str(tmp_path)], "did you mean 'little'?"),
        (["fetch", "little"], "pass --data or set M2FBENCH_DATA"),
        (["check", "coco_instance", "--data", str(tmp_path)], "absent: dataset coco_instance is not here"),
        (["prepare", "coco_panoptic", "--data", str(tmp_path)], "expected ade20k"),
    ):
        monkeypatch.delenv("M2FBENCH_DATA", raising=False)
        status, _, err = call(*arguments)
        assert status == 2, arguments
        assert len(err.splitlines()) == 1
        assert message in err
    status, out, err = call("check", "coco_instance", "--json", "--data", str(tmp_path))
    assert status == 2
    assert json.loads(out)["status"] == "absent"
