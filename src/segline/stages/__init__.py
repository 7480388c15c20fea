"""One thin file a DVC stage: read, call the middle, write."""
