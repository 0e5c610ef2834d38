"""``m2fbench card``."""


def card() -> None:
    """To be written."""
    raise NotImplementedError
