"""Checks of a model's graph and weights, and the error they raise."""

from typing import Any

import keras

from keras_kddp import _compat
from keras_kddp._compat import CallNode


class SurgeryError(ValueError):
    """Says what cannot be taken out of a model, and why."""


def variable_named(layer: keras.Layer, name: str) -> keras.Variable:
    """Returns the one weight of a layer that has this name."""
    found = [v for v in layer.weights if v.name == name]
    if len(found) != 1:
        raise SurgeryError(
            f"The rule of layer '{layer.name}' names a weight '{name}', which "
            f"must exist once. Received weights: "
            f"{[v.name for v in layer.weights]}. Mend the registered rule."
        )
    return found[0]


def require_graph(model: keras.Model) -> None:
    """Checks that a model has a graph of layers that can be read.

    Raises:
        SurgeryError: If it is no model, a Distiller, subclassed or not built.
    """
    if not isinstance(model, keras.Model):
        raise SurgeryError(
            f"`model` must be a keras.Model. Received: {type(model).__name__}."
        )
    if isinstance(model, keras.distillation.Distiller):
        raise SurgeryError(
            "`model` must be a student. Received a Distiller. Pass "
            "`distiller.student`."
        )
    if _compat.functional_graph(model) is None:
        kind = (
            "a Sequential model that is not built: give it an Input or call "
            "it once"
            if isinstance(model, keras.Sequential)
            else f"the subclassed model {type(model).__name__}: write it as a "
            "Functional or Sequential model"
        )
        raise SurgeryError(
            "`model` must be a built Sequential or Functional model, whose "
            f"graph of layers can be read. Received: {kind}."
        )


def operations_by_name(nodes: list[CallNode]) -> dict[str, Any]:
    """Returns the layers and operations of some calls by name.

    Raises:
        SurgeryError: If two have one name, or one stands in two models.
    """
    named: dict[str, Any] = {}
    names: dict[int, str] = {}
    for node in nodes:
        operation, name = node.operation, node.name
        if named.setdefault(name, operation) is not operation:
            raise SurgeryError(
                "Layers must have different names. Received two called "
                f"'{name}'. Rename one."
            )
        is_input = isinstance(operation, keras.layers.InputLayer)
        if not is_input and names.setdefault(id(operation), name) != name:
            raise SurgeryError(
                "A layer must stand in one model only, or its config cannot "
                f"keep it one. Received it as '{names[id(operation)]}' and as "
                f"'{name}'. Call the nested model in both places."
            )
    return named
