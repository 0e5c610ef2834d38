"""What a night leaves for readers: a verdict for programs, a summary for people, JUnit XML for build servers."""

import json
from pathlib import Path

from m2fbench.errors import NightlyError
from m2fbench.nightly.junit import junit_xml
from m2fbench.nightly.records import Verdict
from m2fbench.nightly.summary import LIMIT, summary_markdown
from m2fbench.nightly.verdicts import verdict_json
from m2fbench.writing import make_folder, write_atomically


def write_outputs(verdict: Verdict, folder: Path, *, url: str | None = None) -> list[Path]:
    """``verdict.json``, ``summary.md``, ``junit.xml`` in ``folder``, the night's own; the files written. url: where the dashboard is published.
    Raises StoreError."""
    make_folder(folder)
    contents = {
        folder / "verdict.json": json.dumps(verdict_json(verdict), indent=1, ensure_ascii=False, allow_nan=False) + "\n",
        folder / "summary.md": summary_markdown(verdict, url=url),
        folder / "junit.xml": junit_xml(verdict, folder),
    }
    for path, content in contents.items():
        write_atomically(path, content.encode(errors="replace"))  # a name from a file may hold half a character
    return list(contents)


def append_summary(text: str, path: Path) -> None:
    """Add Markdown to the file that GitHub Actions shows as the job's summary (``GITHUB_STEP_SUMMARY``); only its first paragraph where all
    would be longer than what is shown. Raises NightlyError where it cannot be written."""
    try:
        there = path.stat().st_size if path.exists() else 0
        if there + len(text.encode(errors="replace")) > LIMIT:
            text = f"{text.partition(chr(10))[0]}\n\nThe rest is left out, as a summary may hold no more than 1 MiB; summary.md has it.\n"
        with path.open("ab") as file:
            file.write((b"\n" if there else b"") + text.encode(errors="replace"))
    except OSError as error:
        raise NightlyError(f"{path}: the job summary cannot be written: {error.strerror}; unset GITHUB_STEP_SUMMARY") from error
