"""Cells, grids and the store."""
