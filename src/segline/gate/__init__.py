"""Decide which version may become champion, and give the reasons for a refusal."""
