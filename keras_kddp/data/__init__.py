"""Examples, their splits and how they are read."""
