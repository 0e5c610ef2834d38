"""``m2fbench card-check``."""


def card_check() -> None:
    """To be written."""
    raise NotImplementedError
