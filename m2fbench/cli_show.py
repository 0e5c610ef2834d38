"""``m2fbench show``."""


def show_image() -> None:
    """To be written."""
    raise NotImplementedError
