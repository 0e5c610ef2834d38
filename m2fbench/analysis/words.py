"""Numbers in the sentences that analyses give: notes, reasons, definitions."""

_PLURALS = {"class": "classes"}


def counted(number: int, noun: str) -> str:
    """ "1 image", "12 images"."""
    return f"{number:,} {noun if number == 1 else _PLURALS.get(noun, noun + 's')}"


def span_in_words(low: float, high: float) -> str:
    """ "3 to 7"; one number where both read alike."""
    first, last = _number(low), _number(high)
    return first if first == last else f"{first} to {last}"


def _number(value: float) -> str:
    return f"{value:.0f}" if float(value).is_integer() else f"{value:.1f}"
