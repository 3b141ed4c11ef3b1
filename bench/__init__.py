"""Measurements: ratios and latencies, never assertions."""
