"""What options choose from by name, known without Keras."""

PRUNED = "student, dynamic pruning"
"""Row of the student that a compression is for, beside its controls."""

CONTROLS = {
    "kd": "student, no penalty",
    "same_size": "same size from scratch",
    "same_size_labels": "same size, no teacher",
    "random": "random cut half-way",
    "magnitude": "magnitude cut half-way",
    "contribution": "contribution cut half-way",
}
"""What each control is, by name."""

QUANTIZATION_NAMES = {
    "none": "float32",
    "dynamic": "dynamic",
    "float16": "float16",
    "int8": "int8",
    "int16x8": "int16x8",
    "int4": "int4",
}
"""What the file of each of `to_tflite`'s quantizations is called."""

QAT_EPOCHS = 3
"""Of quantization-aware training, unless told otherwise."""
