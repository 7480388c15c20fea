"""Decide whether a model version may become champion, and give the reasons if it may not."""
