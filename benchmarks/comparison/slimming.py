"""Network slimming: an L1 penalty on the scales of BatchNormalization."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_kddp.pruning.ranking import group_maxima, rank_groups
from keras_kddp.surgery.graph import ChannelGraph
from keras_kddp.surgery.rebuild import rebuild


@keras.saving.register_keras_serializable(package="comparison")
class ScalePenalty(keras.regularizers.Regularizer):
    """Charges for scales until it is told to stop.

    Args:
        strength: Charge for a scale of 1.
    """

    def __init__(self, strength: float) -> None:
        self.strength = strength

    def __call__(self, x: Any) -> Any:
        """Returns the penalty of a tensor of scales."""
        return self.strength * keras.ops.sum(keras.ops.abs(x))

    def get_config(self) -> dict[str, Any]:
        """Returns the strength as it is now."""
        return {"strength": self.strength}


def with_scale_penalty(model: keras.Model, strength: float) -> keras.Model:
    """Returns a copy whose BatchNormalization layers pay for their scales.

    Args:
        model: Plain.
        strength: Charge for a scale of 1.
    """

    def edit(config: dict[str, Any]) -> None:
        for layer in config["layers"]:
            if layer["class_name"] == "BatchNormalization":
                penalty = ScalePenalty(strength)
                layer["config"]["gamma_regularizer"] = (
                    keras.saving.serialize_keras_object(penalty)
                )

    copy = rebuild(model, edit)
    copy.set_weights(model.get_weights())
    return copy


def scaled_layers(model: keras.Model) -> dict[str, str]:
    """Returns the BatchNormalization behind each layer that has one.

    Args:
        model: Each normalization is named after its layer: "x_norm" behind x.
    """
    return {
        layer.name.removesuffix("_norm"): layer.name
        for layer in model.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    }


class SlimmingCut(keras.callbacks.Callback):
    """Cuts a Distiller's student to given widths, the smallest scales first.

    Liu et al. 2017, arXiv 1708.06519; the penalty ends with the cut.

    Args:
        epoch: Before which it is cut.
        widths: Layer name -> units that stay, of layers with a normalization.
    """

    def __init__(self, epoch: int, widths: Mapping[str, int]) -> None:
        super().__init__()
        self._epoch = epoch
        self._widths = widths

    def on_epoch_begin(
        self, epoch: int, logs: dict[str, Any] | None = None
    ) -> None:
        """Cuts the student before its epoch."""
        if epoch != self._epoch:
            return
        student = self.model.student
        norms = scaled_layers(student)
        scales = {
            name: np.abs(
                keras.ops.convert_to_numpy(student.get_layer(norms[name]).gamma)
            )
            for name in self._widths
        }
        graph = ChannelGraph(student)
        ranking = rank_groups(graph, group_maxima(graph, scales), self._widths)
        self.model.replace_student(ranking.plan(len(ranking)))
        for layer in self.model.student.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.gamma_regularizer.strength = 0.0  # traced anew by now
