"""Checkpoints and what turns an image into a prediction with them. The only place, besides profiling, that imports torch."""
