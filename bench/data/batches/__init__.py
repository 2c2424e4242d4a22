"""From a training part to the batches of each view."""
