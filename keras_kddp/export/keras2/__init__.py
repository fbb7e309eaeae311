"""The way to Keras 2 and back, and TFMOT there."""
