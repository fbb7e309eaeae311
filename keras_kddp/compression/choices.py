"""What options choose from by name, known without Keras."""

PRUNED = "student, dynamic pruning"
"""Row of the student that a compression is for, beside its controls."""

NO_TEACHER = "none"
"""What the command line calls a teacher that is not there."""

LABELS, SELF = "labels", "self"
"""What else teaches a student, beside a teacher that was given."""

OWN_TEACHER = "teacher: the student itself"
"""Row of a teacher that is the student, trained without a penalty."""

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
