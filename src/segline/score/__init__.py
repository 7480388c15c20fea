"""Compare predictions with the ground truth: counts, metrics, pictures. All inputs are plain values."""
