"""What reading every map of a run gave, kept for the next question about the same run: a subset is a filter of records, and reading
the maps again for each of twenty would be all of the time.

Nothing outlives the dataset object that it was read with, one of which stands for one state of the truth; a prediction file written
anew is read anew.
"""

from collections.abc import Callable, Hashable, Iterable
from pathlib import Path
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

from m2fbench.files import stamps_sha256
from m2fbench.types import Dataset

T = TypeVar("T")


class Kept(Generic[T]):
    """The last thing made from a dataset's truth and prediction files, for each dataset that is still open."""

    def __init__(self) -> None:
        self._last: WeakKeyDictionary[Any, tuple[Hashable, tuple[Path, ...], str, T]] = WeakKeyDictionary()

    def get(self, dataset: Dataset, key: Hashable, make: Callable[[], tuple[T, Iterable[Path]]]) -> T:
        """What ``make`` gave with the same key; made anew where the files that it names are no longer as they were.

        make: the thing, and the prediction files that it was made from.
        """
        if last := self._last.get(dataset):
            known, paths, stamps, value = last
            if known == key and stamps_sha256(paths) == stamps:
                return value
        value, read = make()
        paths = tuple(read)
        self._last[dataset] = key, paths, stamps_sha256(paths), value
        return value
