"""How far a file may be off, by what was done to its numbers."""

import math

TOLERANCES = {
    "none": 1e-4,
    "float16": 1e-2,
    "dynamic": 0.1,
    "int8": 0.1,
    "int16x8": 0.1,
    "int4": 0.3,
}
"""Largest relative error that passes, by quantization."""

ROUNDING = {"dynamic": 0.5, "int8": 0.5, "int16x8": 0.5, "int4": 0.5}
"""Quantizations that round: most answers count, not the farthest.

With the largest error that passes beside, relative to the output's largest
value: the same classes may come out of other weights.
"""

LEAST_AGREEMENT = 0.98
"""Least share of equal answers that passes in one of these."""

LEAST_AGREEMENT_OF_INT4 = 0.95
"""That share in int4, whose cost the accuracy shows: 16 values per weight."""

_FLOAT_NOISE = {"none": 1e-5, "float16": 1e-3}


def least_agreement(quantization: str, answers: int) -> float:
    """Returns the least share of equal answers that passes.

    Args:
        quantization: Of the file.
        answers: How many there are; of few, all but one must be equal.
    """
    is_int4 = quantization == "int4"
    least = LEAST_AGREEMENT_OF_INT4 if is_int4 else LEAST_AGREEMENT
    all_but_one = (answers - 1) / answers if answers > 2 else 1.0
    return min(least, all_but_one)


def outliers(quantization: str, answers: int) -> int:
    """Returns how many of the answers may be off."""
    if quantization not in ROUNDING:
        return 0
    share = 1 - least_agreement(quantization, answers)
    return math.floor(share * answers + 1e-6)


def float_noise(quantization: str) -> float:
    """Returns the relative rounding error of the floats in a file.

    Pressure of 1008 to 1018 is off by more than 1 % of this range for the
    digits of float16 alone.
    """
    return _FLOAT_NOISE.get(quantization, 0.0)
