"""Tables from the store."""
