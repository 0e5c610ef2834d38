"""``m2fbench examine``."""


def examine() -> None:
    """To be written."""
    raise NotImplementedError
