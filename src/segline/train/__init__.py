"""Train a network: loss, learning rate schedule, training loop, checkpoints, and search for better settings."""
