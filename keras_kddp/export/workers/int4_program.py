"""What the quantizer's process does: .tflite file in, int4 file out."""

import copy
from typing import Any

from ai_edge_quantizer import qtyping, quantizer, recipe
from ai_edge_quantizer.algorithm_manager import AlgorithmName


def answer(source: str, target: str) -> dict[str, Any]:
    """Rounds the weights of Dense layers to 4 bits and others' to 8.

    The kernels of LiteRT for convolutions unpack 4 bits at every run; those
    for Dense layers do not. Channels are clipped where the mean squared error
    is least (Sakr et al. 2022, arXiv 2206.06501).
    """
    (dense,) = copy.deepcopy(recipe.dynamic_wi4_afp32())
    dense["operation"] = qtyping.TFLOperationName.FULLY_CONNECTED
    dense["algorithm_key"] = AlgorithmName.OCTAV
    rules = [*recipe.dynamic_wi8_afp32(), dense]
    result = quantizer.Quantizer(source, rules).quantize()
    with open(target, "wb") as file:
        file.write(result.quantized_model)
    return {}
