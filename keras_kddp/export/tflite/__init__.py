""".tflite files."""
