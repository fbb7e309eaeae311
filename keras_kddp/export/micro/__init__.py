"""C++ sources for microcontrollers."""
