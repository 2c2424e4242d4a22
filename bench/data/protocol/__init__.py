"""What is measured on a prepared data set: the split, the candidates, controls against leakage."""
