"""A history: a folder, or any address that fsspec opens, of result files that are the truth, and a SQLite index that can be made again.

    HISTORY/
        results/AB/SHA256.json     every result file, byte for byte, under the SHA-256 of its content
        origins/AB/SHA256-....json where it was found, and when it was added
        comparisons/AB/....json    paired comparisons (``PairedRecord``)
        releases/NAME.json         the results of a named release
        accepted/....json          regressions that a person has accepted, with the reason
        index.sqlite               made from the above; in the cache for addresses that are no local folder

Every file is written aside and renamed, and none is ever changed: several machines that add to one folder make the union of their files.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType

from m2fbench.analysis.series import Series
from m2fbench.history.records import Added, Entry, PairedRecord, Problem, Selection
from m2fbench.results import RunResult

Tell = Callable[[str], None]


def silent(what: str) -> None:
    """A ``Tell`` that says nothing."""


class History:
    """One open history; a context manager. Opening makes its index if there is none, brings it to the present schema, makes it again where it
    is damaged, and takes in whatever lies in the folder and is not in it yet."""

    def __init__(self, address: str | Path, *, index: Path | None = None, tell: Tell = silent, create: bool = False) -> None:
        """index: the SQLite file, in place of the default one. create: make the folder if it is not there. Raises HistoryError."""
        raise NotImplementedError

    def __enter__(self) -> "History":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        raise NotImplementedError

    @property
    def address(self) -> str:
        raise NotImplementedError

    def add(self, places: Sequence[str | Path], *, progress: Callable[[int, int], None] | None = None) -> Added:
        """Take in every result file at or below these paths and addresses. A file that cannot be read is a problem and stops nothing."""
        raise NotImplementedError

    def entries(self, selection: Selection = Selection()) -> list[Entry]:  # noqa: B008
        """By time, then cell."""
        raise NotImplementedError

    def entry(self, beginning: str) -> Entry:
        """The result whose SHA-256 begins so. Raises HistoryError where none or several do."""
        raise NotImplementedError

    def result(self, sha256: str) -> RunResult:
        """The whole result, read from its file, whose path is that of an origin which still exists, None where none does."""
        raise NotImplementedError

    def series(self, selection: Selection = Selection()) -> list[Series]:  # noqa: B008
        """Every figure night after night, paired comparisons and acceptances in its points; by key."""
        raise NotImplementedError

    def problems(self) -> list[Problem]:
        raise NotImplementedError

    def add_comparison(self, record: PairedRecord) -> None:
        raise NotImplementedError

    def comparison(self, a: str, b: str) -> PairedRecord | None:
        raise NotImplementedError

    def release(self, name: str, results: Iterable[str], *, replace: bool = False) -> None:
        """Name results (by SHA-256) as those of a release. Raises HistoryError where the name is taken."""
        raise NotImplementedError

    def releases(self) -> dict[str, tuple[str, ...]]:
        raise NotImplementedError

    def accept(self, result: str, figure: str, reason: str) -> None:
        """A person accepts that ``figure`` changed with this result: its step is no alarm any more, and its level the one to compare with."""
        raise NotImplementedError
