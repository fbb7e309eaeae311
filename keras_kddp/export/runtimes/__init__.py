"""What runs a .tflite file."""
