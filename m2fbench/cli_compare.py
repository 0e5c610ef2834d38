"""``m2fbench compare``."""


def compare() -> None:
    """To be written."""
    raise NotImplementedError
