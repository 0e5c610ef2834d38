"""``m2fbench report``."""


def report() -> None:
    """To be written."""
    raise NotImplementedError
