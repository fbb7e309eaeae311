"""The way into training and out of it: penalties put in, penalties taken out.

Both make a new model from the config of the old one and copy its weights.
"""

from collections.abc import Callable, Sequence

import keras

from keras_kddp import _compat
from keras_kddp.layers.config_edits import (
    Reference,
    drop_penalties,
    insert_penalty,
)
from keras_kddp.layers.penalized_models import (
    PENALTIES,
    check_penalties,
    penalty_layers,
    prepared_layers,
)
from keras_kddp.layers.penalties import (
    ActivityPenalty,
    is_relu,
    validated_l1,
)
from keras_kddp.model_io import Tensor, to_numpy
from keras_kddp.surgery.calls import is_flattened, layers_by_path
from keras_kddp.surgery.explanation import explain
from keras_kddp.surgery.graph import ChannelGraph
from keras_kddp.surgery.layer_state import carry_layer_state
from keras_kddp.surgery.rebuild import (
    Config,
    entries_by_path,
    rebuild,
)


def prepare(
    student: keras.Model,
    l1: float = 1e-2,
    layers: Sequence[str] | None = None,
) -> keras.Model:
    """Returns a copy of a student with an activity penalty where it can prune.

    Args:
        student: A built Sequential or Functional model.
        l1: Charge for a mean activity of 1, >= 0; see
            `keras_kddp.layers.ActivityPenalty`.
        layers: Names of the layers whose units may go. None: every layer with
            removable units or, on a student that was prepared already, the
            layers prepared then.

    Returns:
        A new uncompiled model with the same weights. An `ActivityPenalty`
        follows the observation point of each layer; where there is a penalty
        already, its `l1` is updated.

    Raises:
        ValueError: If `l1` is negative, the student is subclassed, no unit
            can be removed, a named layer has no removable units, its
            partners are not named too, or a penalty that is there already
            does not stand where activity is observed.

    Example:
        ```python
        student = keras_kddp.prepare(student, l1=1e-2, layers=["fc"])
        ```
    """
    l1 = validated_l1(l1)
    graph = ChannelGraph(student)
    check_penalties(student)
    _check_places(graph)
    names = _chosen_layers(graph, layers)
    points = [x for name in names for x in graph.observation_points(name)]
    updated = {
        graph.maker(tensor).name
        for tensor in points
        if _is_penalized(graph, tensor)
    }
    wanted = {
        _place(graph, tensor): (_new_penalty(graph, tensor, l1), tensor)
        for tensor in points
        if not _is_penalized(graph, tensor)
    }

    def edit(config: Config) -> None:
        configs = {"": config}
        for name, entry in entries_by_path(config):
            configs[name] = entry["config"]
            if name in updated:
                entry["config"]["l1"] = l1
        for (path, reference), (penalty, tensor) in wanted.items():
            insert_penalty(configs[path], reference, penalty, tensor)

    return _copy_edited(student, edit)


def _is_penalized(graph: ChannelGraph, tensor: Tensor) -> bool:
    """Says whether a penalty is what makes a tensor."""
    return isinstance(graph.maker(tensor).operation, PENALTIES)


def _place(graph: ChannelGraph, tensor: Tensor) -> tuple[str, Reference]:
    """Returns in which model's config a tensor stands, and as what.

    Returns:
        "outer/inner" for a nested model, "" for the model itself; the
        reference in its config.
    """
    origin = graph.origin(tensor)
    reference = _compat.tensor_reference(
        origin.tensor, _compat.call_nodes(origin.model)
    )
    return "/".join(origin.path), tuple(reference)


def _new_penalty(
    graph: ChannelGraph, tensor: Tensor, l1: float
) -> ActivityPenalty:
    """Returns a penalty for the units of a tensor."""
    return ActivityPenalty(
        l1,
        non_negative=is_relu(graph.maker(tensor).operation),
        axis=_axis(graph, tensor),
        name="penalty",
        dtype=tensor.dtype,
    )


def _axis(graph: ChannelGraph, tensor: Tensor) -> int:
    """Returns the axis of a tensor's units, -1 for the last."""
    axis = graph.channels[id(tensor)].axis
    return -1 if axis in (None, len(tensor.shape) - 1) else int(axis)


def finalize(student: keras.Model) -> keras.Model:
    """Returns a plain Keras copy of a student, without penalties.

    Args:
        student: A built Sequential or Functional model.

    Returns:
        A new uncompiled model with the same outputs, weights and layer names,
        which loads where keras_kddp is not installed, unless it has custom
        layers of your own.

    Raises:
        ValueError: If the model is subclassed, or has penalties inside
            wrappers.
    """
    ChannelGraph(student)
    check_penalties(student)

    return _copy_edited(student, drop_penalties)


def _check_places(graph: ChannelGraph) -> None:
    """Raises for a penalty that no layer's activity is observed at."""
    observed = {
        id(graph.maker(tensor).operation)
        for name in graph.units
        for tensor in graph.observation_points(name)
    }
    for layer in penalty_layers(graph.model):
        if id(layer) not in observed:
            raise ValueError(
                f"The penalty '{layer.name}' must follow a layer's last "
                "channelwise operation: its activation, before Dropout, "
                "pooling and Flatten. Received it elsewhere. Move it, or "
                "leave it out: `prepare` puts one in."
            )


def _copy_edited(
    model: keras.Model, edit: Callable[[Config], None]
) -> keras.Model:
    """Returns a copy of a model with an edited config and all its weights."""
    if not type(model).__module__.startswith("keras."):
        # Its config need not name layers, and its copy would not be plain.
        raise ValueError(
            "`student` must be a Sequential or Functional model, not a "
            f"subclass of one. Received: {type(model).__name__}. Pass "
            "keras.Model(student.inputs, student.outputs)."
        )
    new_model = rebuild(model, edit)
    successors = layers_by_path(new_model)
    for name, layer in layers_by_path(model).items():
        if name not in successors or is_flattened(layer):
            continue  # a penalty that was taken out; a model of its layers
        new_layer = successors[name]
        kept = [
            variable
            for variable in layer.variables
            if variable.name != "penalty_strength"
            or isinstance(new_layer, PENALTIES)
        ]
        for old, new in zip(kept, new_layer.variables, strict=True):
            new.assign(to_numpy(old))
    carry_layer_state(model, new_model)
    return new_model


def _chosen_layers(
    graph: ChannelGraph, layers: Sequence[str] | None
) -> list[str]:
    removable = graph.removable_layers()
    if not removable:
        raise ValueError(
            "`student` must have a layer whose units can be removed. "
            f"Received a model without any:\n{explain(graph.model)}"
        )
    if layers is None:
        return prepared_layers(graph) or removable
    if isinstance(layers, str) or not layers:
        raise ValueError(
            "`layers` must be a list of layer names, or None for all. "
            f"Received: layers={layers!r}."
        )
    _check_named(graph, layers, removable)
    return list(layers)


def _check_named(
    graph: ChannelGraph, layers: Sequence[str], removable: list[str]
) -> None:
    """Checks that named layers can shrink, and that none lacks a partner."""
    for name in layers:
        if name not in removable:
            raise ValueError(
                "`layers` must name layers with removable units: "
                f"{removable}. Received: '{name}'. See "
                "`keras_kddp.explain(student)`."
            )
        missing = sorted(set(graph.partners(name)) - set(layers))
        if missing:
            raise ValueError(
                f"Units of layer '{name}' leave only together with those of "
                f"{missing}. Received layers={list(layers)}. Name them too."
            )
