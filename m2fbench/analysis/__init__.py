"""What stands behind a run's figures: intervals, subsets, errors, comparisons. Pure functions over stored predictions and truth; nothing
here draws, and nothing needs the model."""
