"""Quantize a pruned student after training, and in training with TFMOT.

    pip install 'keras-kddp[tfmot,micro]'
    python examples/quantization_aware.py

A student of handwritten digits is distilled and pruned; then its int8 file is
made by calibration alone, by quantization-aware training under the teacher, and
with half of the weights zero. Every file is run on LiteRT and TFLM.
"""

import tempfile
from pathlib import Path

import keras
from sklearn.datasets import load_digits

import keras_kddp as kddp


def main() -> None:
    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype("float32")
    train, test = (x[:1200], y[:1200]), (x[1200:], y[1200:])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    keras.utils.set_random_seed(0)
    teacher = kddp.models.digits_teacher()
    teacher.compile("adam", loss)
    teacher.fit(*train, epochs=15, verbose=0)
    student = kddp.models.digits_student()
    found = kddp.compress(
        teacher, student, train, test, epochs=40, batch_size=32, l1=0.2
    )
    print(f"{found.result.units} of {found.units_before} hidden units are left")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plain = kddp.export.to_tflite(
            found.student,
            folder / "calibrated.tflite",
            quantization="int8",
            calibration=train[0],
        )
        print(kddp.export.verify(found.student, plain, *test))
        for techniques in (("quantization",), ("sparsity", "quantization")):
            tuned = kddp.export.finetune_with_tfmot(
                found.student,
                train,
                folder / f"{'_'.join(techniques)}.tflite",
                techniques=techniques,
                teacher=teacher,
                epochs=5,
            )
            print(kddp.export.verify(tuned.model, tuned.tflite, *test))
            print({k: f"{v:.0%} 0" for k, v in tuned.zero_fractions.items()})


if __name__ == "__main__":
    main()
