"""Files that `bench new` begins with; they run as they are."""
