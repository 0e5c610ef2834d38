"""Run directories: one complete prediction per image, kept the moment it is made.

    RUNS/SUITE/ROW/VARIANT/
        identity.json      everything that can change a prediction; another identity does not resume here
        model.json         what is known of the model once its weights are loaded
        suite.json         the suite as it was run, so that what made the predictions can be opened again
        journal.jsonl      one line per finished image: its record, its instances and its panoptic entry, a tab between; only ever appended to
        predictions.json   the instances of all finished images in COCO results format, made from the journal
        panoptic.json      their panoptic entries in COCO panoptic format, likewise
        panoptic/          and the maps, a PNG an image, there before its line in the journal is
        semantic/          label PNGs with the dataset's own values, likewise
        images.csv         the per-image table
        result.json        the figures (result-limit-N.json for a limited run; predicted.json without any for one that only predicted)
        examination.json   what `m2fbench examine` found layer by layer, with examples in examination/
        lock               held while a run writes here

Killed at any moment, a line is either whole or cut off; a cut-off last line is dropped and its image done again. Every other
file is written aside and renamed. Resuming is subtraction: the examples of the dataset less those in the journal.
"""

import contextlib
import csv
import fcntl
import hashlib
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

from m2fbench.errors import StoreError
from m2fbench.formats.names import file_stem
from m2fbench.types import Head, Identity, ImageId, JsonObject, Predictions
from m2fbench.writing import make_folder, store_error, write_atomically

STORE_VERSION = 2
_OURS = (
    "identity.json", "model.json", "suite.json", "journal.jsonl", "predictions.json", "panoptic.json", "images.csv", "result*.json", "predicted.json",
    "panoptic/*.png", "semantic/*.png", "examination.json", "examination/*.npz",
)  # fmt: skip
_LEFTOVERS = (
    ".*.part",
    "panoptic/.*.part",
    "semantic/.*.part",
    "examination/.*.part",
)  # of a process killed between writing aside and renaming


@dataclass(frozen=True)
class ImageRecord:
    """What the journal says of one finished image.

    stamp: the state of the image that was predicted. seconds: by stage. error: why it was left out, None where it was not.
    fallbacks: what was done otherwise than for other images, for lack of device memory; the journal has the key only where there is one,
    so that lines of versions without it are read, and read by them.
    """

    image_id: ImageId
    height: int
    width: int
    predictions: int
    stamp: str
    seconds: Mapping[str, float]
    error: str | None = None
    fallbacks: tuple[str, ...] = ()

    def to_json(self) -> JsonObject:
        return {key: value for key, value in self.__dict__.items() if key != "fallbacks" or value}

    @classmethod
    def from_json(cls, line: JsonObject) -> "ImageRecord":
        """The record that ``to_json`` wrote. Raises TypeError and ValueError."""
        record = cls(**line)
        kinds = type(record.image_id) in (int, str), isinstance(record.seconds, dict), isinstance(record.fallbacks, (list, tuple))
        if not all(kinds):
            raise TypeError("fields of another kind")
        return replace(record, fallbacks=tuple(map(str, record.fallbacks)))


@dataclass(frozen=True)
class ImagePredictions:
    """What is kept of one image; None for a head that was not asked for.

    instances: entries in COCO results format. panoptic: its entry in COCO panoptic format, and its PNG. semantic: its label PNG.
    """

    instances: Sequence[JsonObject] | None = None
    panoptic: tuple[JsonObject, bytes] | None = None
    semantic: bytes | None = None


def predictions_in(run: Path, heads: Sequence[Head], image_ids: Iterable[ImageId]) -> Predictions:
    """The prediction files of a run directory."""
    return Predictions(
        instances=run / "predictions.json" if "instance" in heads else None,
        panoptic=run / "panoptic.json" if "panoptic" in heads else None,
        panoptic_folder=run / "panoptic" if "panoptic" in heads else None,
        semantic={i: run / "semantic" / f"{file_stem(i)}.png" for i in image_ids} if "semantic" in heads else None,
    )


def key_of(identity: Identity) -> str:
    """SHA-256 of an identity, key order aside."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def read_table(run: Path) -> dict[str, str]:
    """image_id (as text) -> error ("" for a finished image) from the per-image table of a run directory. Raises StoreError."""
    try:
        with (run / "images.csv").open(newline="", encoding="utf-8") as file:
            return {row["image_id"]: row["error"] for row in csv.DictReader(file)}
    except (OSError, KeyError, csv.Error, UnicodeDecodeError) as error:
        raise StoreError(
            f"{run}: expected a run directory with images.csv and predictions.json ({error}); finish the run first"
        ) from error


def read_identity(run: Path) -> JsonObject:
    """What the predictions in a run directory were made with. Raises StoreError for a file of another version or of none."""
    path = run / "identity.json"
    try:
        stored = json.loads(path.read_bytes())
        version, identity = stored["store_version"], dict(stored["identity"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path}: not an identity file ({error}); start over with --fresh or choose another --output") from error
    if version != STORE_VERSION:
        raise StoreError(
            f"{path}: expected store version {STORE_VERSION}, got {version}; start over with --fresh or choose another --output"
        )
    return identity


class RunDirectory:
    """One open, locked run directory; a context manager. Opening it again in another process is refused meanwhile."""

    def __init__(self, path: Path, identity: Identity, *, heads: Sequence[Head] = ("instance",), fresh: bool = False) -> None:
        """Create or resume the directory. heads: the kinds of prediction it holds. fresh: discard what m2fbench stored in it before.

        Raises StoreError where it is in use, cannot be written, or holds predictions of another identity.
        """
        self.path = path
        self._identity = dict(identity)
        self.heads = tuple(heads)
        self._folders: tuple[Head, ...] = tuple(head for head in self.heads if head != "instance")
        make_folder(path)
        try:
            for head in self._folders:
                (path / head).mkdir(exist_ok=True)
            self._lock = (path / "lock").open("a")
        except OSError as error:
            raise store_error(path, error) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            raise StoreError(f"{path}: another run is writing here; wait for it, or choose another folder with --output") from error
        try:
            self._discard(_LEFTOVERS)
            if fresh:
                self._discard(_OURS)
            self._check_identity()
            self._records, whole = self._read_journal()
            self._journal = self._open_journal(whole)
            self._forget_lost_maps()
        except BaseException:
            self._lock.close()
            raise

    def __enter__(self) -> "RunDirectory":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._journal.close()
        self._lock.close()

    @property
    def records(self) -> Mapping[ImageId, ImageRecord]:
        """Finished images, by id."""
        return self._records

    @property
    def predictions(self) -> Predictions:
        return predictions_in(self.path, self.heads, [i for i, r in self._records.items() if r.error is None])

    def append(self, record: ImageRecord, predictions: ImagePredictions) -> None:
        """Keep one image's predictions; on return they survive the death of this process. Raises StoreError, e.g. disk full."""
        name = f"{file_stem(record.image_id)}.png"
        if predictions.panoptic is not None:
            self._write_map(self.path / "panoptic" / name, predictions.panoptic[1])
        if predictions.semantic is not None:
            self._write_map(self.path / "semantic" / name, predictions.semantic)
        head = _compact(record.to_json())
        instances = ",".join(map(_compact, predictions.instances or ()))
        panoptic = "" if predictions.panoptic is None else _compact(predictions.panoptic[0])
        rest = memoryview(f"{head}\t{instances}\t{panoptic}\n".encode())
        start = self._journal.seek(0, io.SEEK_END)
        try:
            while rest:  # a raw write may take a part only
                rest = rest[self._journal.write(rest) :]
        except OSError as error:
            with contextlib.suppress(OSError):
                self._journal.truncate(start)
            raise store_error(self.path / "journal.jsonl", error) from error
        self._records[record.image_id] = record

    def _write_map(self, path: Path, content: bytes) -> None:
        """As safe against the death of the process as the journal is; not synchronised to the disk either."""
        aside = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            aside.write_bytes(content)
            aside.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                aside.unlink()
            raise store_error(path, error) from error

    @property
    def model(self) -> JsonObject:
        """What ``write_model`` kept, from whichever session loaded the model."""
        try:
            return dict(json.loads((self.path / "model.json").read_bytes()))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError) as error:
            raise StoreError(f"{self.path}: model.json cannot be read ({error}); start over with --fresh") from error

    def write_model(self, facts: JsonObject) -> None:
        write_atomically(self.path / "model.json", json.dumps(facts) + "\n")

    def write_suite(self, snapshot: JsonObject) -> None:
        """snapshot: see ``m2fbench.suite.snapshot``."""
        write_atomically(self.path / "suite.json", json.dumps(snapshot, indent=1) + "\n")

    def forget_errors(self, image_ids: Iterable[ImageId]) -> None:
        """Let those of these images that were left out be tried again: what was wrong with them may have been mended."""
        for image_id in image_ids:
            if (record := self._records.get(image_id)) is not None and record.error is not None:
                del self._records[image_id]

    def _forget_lost_maps(self) -> None:
        """An image whose PNG has been deleted is not finished."""
        for head in self._folders:
            there = {entry.name for entry in os.scandir(self.path / head)}
            self._records = {i: r for i, r in self._records.items() if r.error is not None or f"{file_stem(i)}.png" in there}

    def export(self, order: Sequence[ImageId], categories: Sequence[JsonObject] = ()) -> None:
        """Write predictions.json and panoptic.json: every finished image, in ``order``. categories: of the latter."""
        lines = {
            i: (self._records[i], instances, panoptic) for i, instances, panoptic in self._journal_lines() if i in self._records
        }
        chosen = [lines[i] for i in order if i in lines]
        if "instance" in self.heads:
            write_atomically(self.path / "predictions.json", "[" + ",\n".join(i for _, i, _ in chosen if i) + "]\n")
        if "panoptic" in self.heads:
            images = ",\n".join(
                _compact({"id": r.image_id, "height": r.height, "width": r.width, "file_name": f"{file_stem(r.image_id)}.png"})
                for r, _, entry in chosen if entry
            )  # fmt: skip
            entries = ",\n".join(entry for _, _, entry in chosen if entry)
            write_atomically(
                self.path / "panoptic.json",
                f'{{"images": [{images}],\n"annotations": [{entries}],\n"categories": {json.dumps(list(categories))}}}\n',
            )

    def write_table(self, order: Sequence[ImageId]) -> None:
        """Write images.csv: the records of the finished images of ``order``."""
        stages = sorted({stage for r in self._records.values() for stage in r.seconds})
        buffer = io.StringIO()
        table = csv.writer(buffer, lineterminator="\n")
        table.writerow(["image_id", "height", "width", "predictions", *(f"{s}_seconds" for s in stages), "fallback", "error"])
        for image_id in order:
            if (record := self._records.get(image_id)) is not None:
                table.writerow([
                    image_id, record.height, record.width, record.predictions,
                    *(f"{record.seconds[s]:.6f}" if s in record.seconds else "" for s in stages),
                    "; ".join(record.fallbacks), record.error or "",
                ])  # fmt: skip
        write_atomically(self.path / "images.csv", buffer.getvalue())

    def write_result(self, document: JsonObject, limit: int | None, *, scored: bool = True) -> Path:
        """``predicted.json`` for a run that was not scored: the figures of one that was stay."""
        name = "result.json" if limit is None else f"result-limit-{limit}.json"
        path = self.path / (name if scored else "predicted.json")
        write_atomically(path, json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
        return path

    def _discard(self, patterns: Sequence[str]) -> None:
        """Delete what m2fbench wrote here, and nothing else."""
        for pattern in patterns:
            for file in self.path.glob(pattern):
                try:
                    file.unlink()
                except OSError as error:
                    raise store_error(file, error) from error

    def _check_identity(self) -> None:
        path = self.path / "identity.json"
        document = {"store_version": STORE_VERSION, "key": key_of(self._identity), "identity": self._identity}
        if not path.exists():
            write_atomically(path, json.dumps(document, indent=1) + "\n")
            return
        before = read_identity(self.path)
        if _truth_came(before, self._identity):
            write_atomically(path, json.dumps(document, indent=1) + "\n")
        elif key_of(before) != document["key"]:
            changed = "; ".join(differences(before, self._identity))
            raise StoreError(
                f"{self.path}: holds predictions made otherwise ({changed}); they cannot be mixed: choose another --output, "
                f"or discard them with --fresh"
            )

    def _open_journal(self, whole: int) -> io.FileIO:
        """The journal, unbuffered, cut after its last whole line."""
        path = self.path / "journal.jsonl"
        try:
            journal = io.FileIO(path, "a+")
            if journal.seek(0, io.SEEK_END) > whole:
                journal.truncate(whole)
        except OSError as error:
            raise store_error(path, error) from error
        return journal

    def _read_journal(self) -> tuple[dict[ImageId, ImageRecord], int]:
        """Records by image id, and the length in bytes of the whole lines."""
        records: dict[ImageId, ImageRecord] = {}
        whole = 0
        path = self.path / "journal.jsonl"
        if not path.exists():
            return records, whole
        if not path.is_file():
            raise StoreError(f"{path}: expected a file; choose another --output")
        with path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break
                try:
                    record = ImageRecord.from_json(json.loads(line.partition(b"\t")[0]))
                    if line.count(b"\t") != 2:
                        raise ValueError("not three fields")
                except (ValueError, TypeError, RecursionError) as error:
                    raise StoreError(f"{path}: byte {whole}: not a line of a journal ({error}); start over with --fresh") from error
                records[record.image_id] = record
                whole += len(line)
        return records, whole

    def _journal_lines(self) -> Iterator[tuple[ImageId, str, str]]:
        """Image id, instances, panoptic entry; the texts are JSON."""
        with (self.path / "journal.jsonl").open(encoding="utf-8") as file:
            for line in file:
                head, instances, panoptic = line.rstrip("\n").split("\t")
                yield json.loads(head)["image_id"], instances, panoptic


def _compact(value: Mapping[str, object]) -> str:
    return json.dumps(value, separators=(",", ":"))


def dataset_identity(fingerprint: JsonObject) -> JsonObject:
    """The part of a dataset's fingerprint that all predictions in a directory have in common; image files are told apart one by one."""
    return {k: v for k, v in fingerprint.items() if k not in ("images_sha256", "missing_images")}


def without_truth(dataset: Identity) -> JsonObject:
    """A dataset's identity but for its truth, which predictions do not depend on."""
    return {k: v for k, v in dataset.items() if k not in ("annotations_sha256", "instances")}


def _truth_came(before: Identity, now: Identity) -> bool:
    """Whether the two differ only in truth, of which there was none before, as in a run that only predicted."""
    old, new = before.get("dataset"), now.get("dataset")
    if not isinstance(old, dict) or not isinstance(new, dict) or old.get("annotations_sha256") is not None:
        return False
    return {**before, "dataset": without_truth(old)} == {**now, "dataset": without_truth(new)}


def differences(before: Identity, now: Identity, prefix: str = "") -> Iterable[str]:
    """``dotted.key: was ..., is ...`` for every value in which two identities differ."""
    for key in sorted({*before, *now}):
        old, new, name = before.get(key), now.get(key), f"{prefix}{key}"
        if isinstance(old, dict) and isinstance(new, dict):
            yield from differences(old, new, f"{name}.")
        elif old != new:
            yield f"{name}: was {json.dumps(old)}, is {json.dumps(new)}"
