"""Deleting the predictions of nights long past, which take the space. Results, verdicts and logs stay, and so do the predictions that a
baseline or a release still needs."""

import os
from collections.abc import Iterator
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

from m2fbench.analysis.regressions import detect
from m2fbench.analysis.words import counted
from m2fbench.errors import NightlyError
from m2fbench.facts import now
from m2fbench.history.history import History
from m2fbench.history.records import Selection
from m2fbench.nightly.config import NightlyConfig
from m2fbench.nightly.folder import NightFile, locked, nights_in, results_in, write_night
from m2fbench.writing import store_error

_OF_A_RUN = ("predictions.json", "panoptic.json", "journal.jsonl", ".*.part")
_MAPS = ("panoptic", "semantic")


def prune(output: Path, config: NightlyConfig, history: History, present: Path) -> list[str]:
    """Delete the predictions of this nightly's nights but the last ``keep.predictions``; a line for every night that lost some. present: the
    folder of the night at work, which is left alone. Nothing outside ``output`` is touched, and no link followed. Raises StoreError."""
    mine = [one for one in nights_in(output) if one[1].nightly == config.nightly]
    old = [(path, night) for path, night in mine[config.keep.predictions :] if night.pruned is None and path != present]
    if not old:
        return []
    needed = needed_results(history, config)
    lines = []
    for path, night in old:
        try:
            with locked(path, patience=0.0):
                deleted = _prune_night(path, night, needed)
        except NightlyError:  # somebody works on it
            continue
        if deleted:
            lines.append(
                f"{path.name}: {deleted / 10**6:.1f} MB of predictions deleted, {counted(config.keep.predictions, 'night')} being kept"
            )
    return lines


def needed_results(history: History, config: NightlyConfig) -> set[str]:
    """Results whose predictions a next night may be compared with: the baseline and the last night in line of every series, and all releases."""
    needed = {sha256 for results in history.releases().values() for sha256 in results}
    for series in history.series(Selection(kinds=("accuracy",))):
        seen = detect(series, config.rules.rules)
        needed.update(series.points[k].result for k in (seen.baseline, seen.in_line) if k is not None)
    return needed


def _prune_night(path: Path, night: NightFile, needed: set[str]) -> int:
    """Bytes deleted. A night of which something is kept is looked at again another time."""
    kept = {cell for cell, results in results_in(path).items() if needed.intersection(results)}
    deleted = sum(_unlinked(path / "runs", kept)) + sum(_unlinked(path / "repeats" / "runs", set()))
    if not kept:
        write_night(path, replace(night, pruned=now()))
    return deleted


def _unlinked(runs: Path, kept: set[str]) -> Iterator[int]:
    """The size of every prediction file below ``runs`` that was deleted. kept: cells (``suite/row/variant``) that are left alone."""
    if runs.parent.is_symlink() or not runs.is_dir():
        return
    for folder, _, files, descriptor in os.fwalk(runs, follow_symlinks=False):
        parts = Path(folder).relative_to(runs).parts
        if "/".join(parts[:3]) in kept:
            continue
        for name in files:
            if not _is_prediction(parts, name):
                continue
            try:
                size = os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_size
                os.unlink(name, dir_fd=descriptor)
            except OSError as error:
                raise store_error(Path(folder) / name, error) from error
            yield size


def _is_prediction(parts: tuple[str, ...], name: str) -> bool:
    if len(parts) == 3:
        return any(fnmatchcase(name, pattern) for pattern in _OF_A_RUN)
    return len(parts) == 4 and parts[3] in _MAPS and name.endswith((".png", ".part"))
