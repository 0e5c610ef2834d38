"""Checkpoint files from the web, held to the hash that their name promises; how they come is ``m2fbench.download``."""

from pathlib import Path

from m2fbench import download
from m2fbench.download import Progress, Promise, Terms, cache_folder, file_name, is_url, redacted
from m2fbench.errors import CheckpointError
from m2fbench.models.zoo import hash_in_name

__all__ = ["Progress", "cache_folder", "fetch", "is_url", "redacted"]

TERMS = Terms(CheckpointError)


def fetch(url: str, progress: Progress | None = None) -> Path:
    """The file at an https address, from the cache where it is whole there. Raises CheckpointError; what has arrived is kept."""
    promised = hash_in_name(file_name(url))
    return download.fetch(url, TERMS, promise=Promise(*promised) if promised else None, progress=progress)
