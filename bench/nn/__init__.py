"""Blocks used by three models or more."""
