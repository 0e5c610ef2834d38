"""The dashboard: a static site of a history's series, with nothing to install and nothing to load from elsewhere."""
