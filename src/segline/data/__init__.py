"""Turn a dataset folder into prepared arrays, weight maps and tiles; `checks` finds problems in the dataset."""
