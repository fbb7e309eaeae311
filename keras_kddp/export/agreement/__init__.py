"""Whether an exported file computes what Keras computes, and how fast."""
