"""The whole walk, compared with controls and kept in a folder."""
