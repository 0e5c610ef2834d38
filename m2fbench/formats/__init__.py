"""The official prediction files, both ways."""
