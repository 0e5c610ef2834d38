"""The results of many nights: files that are the truth, and an index of them."""
