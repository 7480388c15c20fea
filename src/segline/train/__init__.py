"""Train a network: loss, schedule, loop, checkpoints, and the search for settings."""
