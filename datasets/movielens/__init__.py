"""MovieLens: `ml_100k` and the releases with CSV or `::` files."""
