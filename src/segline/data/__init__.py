"""From files to tiles."""
