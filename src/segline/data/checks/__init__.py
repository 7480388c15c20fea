"""Check a dataset before training: each image, its labels, its duplicates, and the whole dataset."""
