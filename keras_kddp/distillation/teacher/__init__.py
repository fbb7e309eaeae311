"""A teacher's outputs, asked once and kept."""
