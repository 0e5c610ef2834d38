"""Nights of this user at work on this machine, so that one can be told of another that disturbs it."""

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from m2fbench.download import cache_folder


@contextlib.contextmanager
def at_work(night: Path, history: str, output: Path) -> Iterator[list[str]]:
    """Be known as at work; one line for every other night that is, with the same history or output. Each holds a lock on a file of its own in
    the cache, which the system lets go of however it ends; where that cannot be written, nights are not told of each other."""
    places = cache_folder() / "nights"
    mine = places / hashlib.sha256(os.fsencode(night)).hexdigest()[:16]
    with contextlib.ExitStack() as stack:
        try:
            places.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(mine.open("w", encoding="utf-8", errors="surrogateescape"))
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write("\n".join((str(night), history, str(output))))
            file.flush()
            stack.callback(mine.unlink, missing_ok=True)
            told = [line for path in sorted(places.iterdir()) if path != mine for line in _told(path, history, output)]
        except OSError:
            told = []
        yield told


def _told(path: Path, history: str, output: Path) -> Iterator[str]:
    try:
        with path.open(encoding="utf-8", errors="surrogateescape") as file:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return  # nobody holds it: left by one that was killed
            its_night, its_history, its_output = file.read().split("\n")
    except (OSError, ValueError):
        return
    shared = [what for what, same in (("history", its_history == history), ("output", its_output == str(output))) if same]
    if shared:
        yield (
            f"another night with the same {' and '.join(shared)} is at work on this machine: {its_night}; speeds of both suffer, and neither "
            f"is compared with what the other has not ended yet"
        )
