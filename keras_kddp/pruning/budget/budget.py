"""What a finished student must fit."""

import math
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from keras_kddp.arguments import shortened

MEASURES = ("parameters", "macs", "bytes", "arena_bytes")
"""What a budget may limit the size of a student in."""


@dataclass(frozen=True)
class Budget:
    """What the student must fit when `fit` is done.

    Limits may stand together; `keras_kddp.DynamicPruning(budget=...)` holds
    all of them.

    Args:
        max_parameters: Weights, as `keras_kddp.profile` counts them.
        max_macs: Multiply-accumulates for one example, as `profile` counts.
        max_bytes: Size of the int8 .tflite file; needs the TensorFlow backend.
        max_arena_bytes: Memory that TensorFlow Lite Micro needs to run the int8
            file, as it is measured here: with its reference kernels and
            pointers of 64 bits, so a chip needs less. Needs tflite-micro and
            the TensorFlow backend.
        max_accuracy_drop: How far the accuracy on the validation data may be
            below the reference, in [0, 1); 0.01 is one point.
        reference: What the accuracy is compared with: `"student"`, the
            unpruned one, `"teacher"`, or an accuracy in [0, 1]. The unpruned
            student of `keras_kddp.compress` is trained to the end, first. In
            `fit` none is: there its best epoch before the first removal
            counts. A longer unpruned run may be better, as a verbose run says
            too; to count from one, pass its accuracy. Where size and accuracy
            cannot both be kept, accuracy is.

    Raises:
        ValueError: If no limit is given, or one is out of range.

    Example:
        ```python
        budget = keras_kddp.Budget(max_bytes=80_000)
        pruning = keras_kddp.DynamicPruning(budget=budget)
        ```
    """

    max_parameters: int | None = None
    max_macs: int | None = None
    max_bytes: int | None = None
    max_arena_bytes: int | None = None
    max_accuracy_drop: float | None = None
    reference: str | float = "student"

    def __post_init__(self) -> None:
        """Checks the limits."""
        for measure, limit in self.sizes().items():
            is_integer = isinstance(limit, Integral) and limit is not True
            if not is_integer or limit < 1:
                raise ValueError(
                    f"`max_{measure}` must be an integer >= 1, or None. "
                    f"Received: max_{measure}={shortened(limit)}. Give the "
                    "largest number that the device has room for."
                )
        drop = self.max_accuracy_drop
        if drop is not None and not (_is_number(drop) and 0 <= drop < 1):
            raise ValueError(
                "`max_accuracy_drop` must be a number in [0, 1), or None. "
                f"Received: max_accuracy_drop={drop!r}. One point is 0.01."
            )
        if drop is None and not self.sizes():
            raise ValueError(
                "`Budget` must have a limit. Received none. Try "
                "Budget(max_parameters=50_000)."
            )
        self._check_reference()

    def _check_reference(self) -> None:
        reference: Any = self.reference
        is_name = isinstance(reference, str)
        is_known = is_name and reference in ("student", "teacher")
        is_accuracy = _is_number(reference) and 0 <= reference <= 1
        if not (is_known or is_accuracy):
            raise ValueError(
                "`reference` must be 'student', 'teacher' or an accuracy in "
                f"[0, 1]. Received: reference={reference!r}. Leave it out to "
                "count from the unpruned student."
            )
        if reference != "student" and self.max_accuracy_drop is None:
            raise ValueError(
                "`reference` must stand beside a `max_accuracy_drop`. "
                f"Received: reference={reference!r} alone. Say how far the "
                "accuracy may fall, or leave it out."
            )

    def sizes(self) -> dict[str, int]:
        """Returns the limits of size that are given, by measure."""
        limits = {
            measure: getattr(self, f"max_{measure}") for measure in MEASURES
        }
        return {m: limit for m, limit in limits.items() if limit is not None}


def _is_number(value: Any) -> bool:
    is_real = isinstance(value, Real) and not isinstance(value, bool)
    return is_real and -math.inf < value < math.inf


def checked_budget(budget: Any) -> Budget | None:
    """Returns a budget, or None.

    Raises:
        ValueError: If it is neither.
    """
    if budget is not None and not isinstance(budget, Budget):
        raise ValueError(
            "`budget` must be a keras_kddp.Budget, or None. Received: "
            f"budget={budget!r}. Try Budget(max_parameters=50_000)."
        )
    return budget
