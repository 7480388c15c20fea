"""The commands that a user types, each in a short file of its own."""
