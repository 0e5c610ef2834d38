"""Dataset readers, one per module; each registers itself in ``m2fbench.suite.datasets``."""
