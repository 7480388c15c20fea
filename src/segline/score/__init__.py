"""Predictions against truth: counts, metrics, pictures. Takes plain values only."""
