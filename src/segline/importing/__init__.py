"""Foreign layouts brought into a dataset folder, all or nothing."""
