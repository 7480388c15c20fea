"""Loss, schedule, loop and checkpoints."""
