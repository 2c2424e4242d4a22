"""Ranks, the metrics that are views of them, and their tests."""
