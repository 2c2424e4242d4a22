"""The data layer: events in, batches out."""
