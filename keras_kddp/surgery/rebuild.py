"""A model made anew from its edited configuration."""

import contextlib
import types
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

from keras_kddp import _compat
from keras_kddp.surgery.graph import SurgeryError

Config = dict[str, Any]


def rebuild(model: keras.Model, edit: Callable[[Config], None]) -> keras.Model:
    """Returns a new model from the edited config of a model.

    Weights are fresh; names and trainable flags are kept. The global random
    state is not touched.

    Args:
        model: A built Sequential or Functional model.
        edit: Changes the config (a copy) in place.

    Raises:
        SurgeryError: If Keras cannot make the model from its config.
    """
    with _explained_failure(model):
        config = model.get_config()
    if "layers" not in config:
        raise SurgeryError(
            "The class of the model must be rebuildable from layers. Received "
            f"'{model.name}' ({type(model).__name__}), which has an `__init__` "
            "of its own. Make it with `keras.Model(inputs, outputs)`."
        )
    _keep_activations(model, config)
    for entry in config["layers"]:
        entry.pop("build_config", None)  # it would build at the old widths
    edit(config)
    with _explained_failure(model), _compat.untouched_seeds():
        new_model = type(model).from_config(
            config, custom_objects=_custom_objects(model)
        )
    new_model.dtype_policy = model.dtype_policy  # a config leaves it out
    _carry_trainable_flags(model, new_model)
    return new_model


@contextlib.contextmanager
def _explained_failure(model: keras.Model) -> Iterator[None]:
    try:
        yield
    except (NotImplementedError, TypeError, ValueError) as error:
        raise SurgeryError(
            "The model must be rebuildable from `model.get_config()`. "
            f"Received '{model.name}', for which Keras says: {error}. Custom "
            "layers need a `get_config` that returns every argument."
        ) from error


def _keep_activations(model: keras.Model, config: Config) -> None:
    """Puts the very activation functions where a config has their names.

    Two functions may have the same name, one may shadow a name of Keras, and
    a lambda is not restored from its bytes.
    """
    operations = {op.name: op for op in _operations(model)}
    for entry in config["layers"]:
        operation: Any = operations.get(entry["config"]["name"])
        if _is_nested(operation):
            _keep_activations(operation, entry["config"])
        activation = getattr(operation, "activation", None)
        if isinstance(activation, types.FunctionType) and _is_from_keras(
            type(operation).from_config
        ):
            entry["config"]["activation"] = activation


def _custom_objects(model: keras.Model) -> dict[str, Any]:
    """Returns classes and functions that a user need not have registered."""
    found: dict[str, Any] = {}
    for operation in _operations(model):
        if _is_nested(operation):
            found.update(_custom_objects(operation))
        custom: list[Any] = [type(operation)]
        if not _is_from_keras(type(operation).from_config):
            custom.append(getattr(operation, "activation", None))
        found.update(
            (value.__name__, value)
            for value in custom
            if hasattr(value, "__name__") and not _is_from_keras(value)
        )
    return found


def _operations(model: keras.Model) -> list[Any]:
    return [node.operation for node in _compat.call_nodes(model)]


def _is_nested(operation: Any) -> bool:
    is_model = isinstance(operation, keras.Model)
    return is_model and _compat.functional_graph(operation) is not None


def _is_from_keras(value: Any) -> bool:
    return value.__module__.startswith("keras.")


def _carry_trainable_flags(model: keras.Model, new_model: keras.Model) -> None:
    """Copies what configs leave out: a Sequential's flag, a weight's own."""
    if new_model.trainable != model.trainable:
        new_model.trainable = model.trainable  # and of every layer with it
    old_layers = layers_of(model)
    for name, layer in layers_of(new_model).items():
        if name in old_layers and layer.trainable != old_layers[name].trainable:
            layer.trainable = old_layers[name].trainable
    for _, old, new in paired_variables(model, new_model):
        new.trainable = old.trainable


def layers_of(model: keras.Model) -> dict[str, keras.Layer]:
    """Returns the layers of a model by name."""
    return {layer.name: layer for layer in model.layers}


def paired_variables(
    old_model: keras.Model, new_model: keras.Model
) -> Iterator[tuple[keras.Layer, keras.Variable, keras.Variable]]:
    """Pairs the variables of layers that two models have in common.

    Seed states of Dropout and its like are among them.

    Yields:
        The old layer, its variable, and the variable of the new model.
    """
    successors = layers_of(new_model)
    for name, layer in layers_of(old_model).items():
        if name not in successors:
            continue
        old, new = layer.variables, successors[name].variables
        if len(old) != len(new):  # a bias was gained, or a penalty went
            by_name = {variable.name: variable for variable in new}
            old = [variable for variable in old if variable.name in by_name]
            new = [by_name[variable.name] for variable in old]
        for old_variable, variable in zip(old, new, strict=True):
            yield layer, old_variable, variable


def to_numpy(variable: keras.Variable) -> np.ndarray:
    """Returns the value of a variable in its own dtype."""
    return np.asarray(variable.numpy())
