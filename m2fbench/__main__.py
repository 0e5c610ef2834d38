"""``python -m m2fbench`` is the ``m2fbench`` command."""

from m2fbench.cli import main

main()
