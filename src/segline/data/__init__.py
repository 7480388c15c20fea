"""Turn a dataset folder into prepared arrays, weight maps and tiles; the package `checks` finds problems."""
