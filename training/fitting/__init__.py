"""Embeddings, splits, heads, calibration and thresholds."""
