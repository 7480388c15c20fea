"""Checks of a dataset before training: each image, its labels, its duplicates, the whole dataset."""
