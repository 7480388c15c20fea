"""Who may become champion, and why a version was refused."""
