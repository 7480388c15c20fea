"""Data from the dataset folder to prepared arrays, weight maps and tiles; `checks` finds problems in a dataset."""
