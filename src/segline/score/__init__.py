"""Compare predictions with the ground truth: counts, metrics and pictures. All inputs are arrays or plain values."""
