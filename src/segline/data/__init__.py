"""From the dataset folder to prepared arrays, weight maps and tiles; `checks` reports problems of a dataset."""
