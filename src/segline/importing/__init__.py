"""Import data of foreign layouts into a dataset folder, atomically."""
