"""One thin file a command that a person types."""
