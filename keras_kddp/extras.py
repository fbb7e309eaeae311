"""What an optional dependency is for, and how to get it."""
