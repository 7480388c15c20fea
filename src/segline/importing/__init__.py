"""Import foreign layouts into a dataset folder, completely or not at all."""
