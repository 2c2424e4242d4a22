"""What the readers of published logs share: lines in blocks, typed fields, faults named by row."""
