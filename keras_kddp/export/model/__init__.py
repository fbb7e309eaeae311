"""A Keras model as an export sees it."""
