"""The program of the converter's process: SavedModel in, .tflite file out.

It runs as a script and imports nothing of this package, so that no layer of
the user has to be importable here. One JSON object a line comes in on
standard input, `{"saved_model": FOLDER, "target": FILE, "calibration": null}`,
and one goes out, `{"error": null}` or `{"error": TEXT}`. Calibration is the
.npz file of an int8 conversion: samples by input name.
"""

import json
import os
import sys
from typing import Any, TextIO

import numpy


def main() -> None:
    """Converts until standard input ends."""
    requests, replies = _claim_standard_streams()
    import tensorflow as tf  # after the claim: the import writes to stdout

    for line in requests:
        problem = None
        try:
            _convert(tf, **json.loads(line))
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
        replies.write(json.dumps({"error": problem}) + "\n")
        replies.flush()


def _claim_standard_streams() -> tuple[TextIO, TextIO]:
    """Keeps the two streams for the protocol; prints go to standard error."""
    requests = os.fdopen(os.dup(0), "r", encoding="utf-8")
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return requests, replies


def _convert(
    tf: Any, saved_model: str, target: str, calibration: str | None
) -> None:
    converter = tf.lite.TFLiteConverter.from_saved_model(
        saved_model, signature_keys=["serving_default"]
    )
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    converter.allow_custom_ops = False
    if calibration is not None:
        _quantize(tf, converter, calibration)
    content = converter.convert()
    with open(target, "wb") as file:
        file.write(content)


def _quantize(tf: Any, converter: Any, calibration: str) -> None:
    """Asks for int8 throughout, weights of each output channel by itself."""
    with numpy.load(calibration) as file:
        samples = dict(file)
    count = len(next(iter(samples.values())))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: (
        {name: array[row : row + 1] for name, array in samples.items()}
        for row in range(count)
    )
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.int8
    converter.inference_output_type = tf.int8


if __name__ == "__main__":
    main()
