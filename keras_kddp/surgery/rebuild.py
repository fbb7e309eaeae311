"""A model made anew from its edited configuration."""

import contextlib
import types
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import keras

from keras_kddp import _compat
from keras_kddp.surgery.calls import is_flattened, layers_by_path
from keras_kddp.surgery.checks import SurgeryError
from keras_kddp.surgery.hidden_state import check_hidden_state
from keras_kddp.surgery.layer_state import is_custom

Config = dict[str, Any]

is_own_model: ContextVar[bool] = ContextVar("is_own_model", default=False)
"""Whether what is made from a config is a copy of a model that is here.

Keras takes every config for a stranger's; a layer that refuses those asks here.
"""


def rebuild(model: keras.Model, edit: Callable[[Config], None]) -> keras.Model:
    """Returns a new model from the edited config of a model.

    Weights are fresh; names and trainable flags are kept. The global random
    state is not touched.

    Args:
        model: A built Sequential or Functional model.
        edit: Changes the config (a copy) in place.

    Raises:
        SurgeryError: If Keras cannot make the model from its config, or a
            layer would lose what only its attributes know.
    """
    check_hidden_state(model)
    with _explained_failure(model):
        config = model.get_config()
    if "layers" not in config:
        raise SurgeryError(
            "The class of the model must be rebuildable from layers. Received "
            f"'{model.name}' ({type(model).__name__}), which has an `__init__` "
            "of its own. Make it with `keras.Model(inputs, outputs)`."
        )
    makers = _keep_names(model, config)
    _keep_activations(model, config)
    for _, entry in entries_by_path(config):
        entry.pop("build_config", None)  # it would build at the old widths
        entry["config"].pop("build_input_shape", None)
    edit(config)
    token = is_own_model.set(True)
    try:
        with _explained_failure(model), _compat.untouched_seeds():
            new_model = type(model).from_config(
                config, custom_objects=_custom_objects(model) | makers
            )
    finally:
        is_own_model.reset(token)
    new_model.dtype_policy = model.dtype_policy  # a config leaves it out
    _carry_flags(model, new_model)
    return new_model


def entry_name(entry: Config) -> str:
    """Returns the name of an entry of a model's config.

    That of a Sequential model has it in the layer's own config alone.
    """
    return str(entry.get("name") or entry["config"]["name"])


def entries_by_path(
    config: Config, prefix: str = ""
) -> Iterator[tuple[str, Config]]:
    """Yields the entries of a model's config by name, nested ones too.

    Args:
        config: Of a Sequential or Functional model.
        prefix: What stands before the names.

    Yields:
        "name" or "outer/inner", and the entry, which may be changed.
    """
    for entry in list(config["layers"]):
        name = prefix + entry_name(entry)
        yield name, entry
        if "layers" in entry["config"]:
            yield from entries_by_path(entry["config"], f"{name}/")


@contextlib.contextmanager
def _explained_failure(model: keras.Model) -> Iterator[None]:
    try:
        yield
    except (NotImplementedError, TypeError, ValueError) as error:
        raise SurgeryError(
            "The model must be rebuildable from `model.get_config()`. "
            f"Received '{model.name}', for which Keras says: "
            f"{_without_unsafe_advice(str(error))} Custom layers need a "
            "`get_config` that returns every argument. Functions, that of a "
            "Lambda too, need a name and "
            "`@keras.saving.register_keras_serializable()`."
        ) from error


def _without_unsafe_advice(said: str) -> str:
    """Returns what Keras says, without its way around safe mode.

    The model would be trained, and could not be read from its file.
    """
    if "safe_mode=False" in said:
        said = said.partition(" This carries ")[0]
    return said if said.endswith(".") else f"{said}."


class _Maker:
    """Makes a custom layer anew, under the name that it has.

    The config of a class need not have the name in it, nor its constructor
    take one; and two classes may be called alike.

    Args:
        layer: The layer.
    """

    def __init__(self, layer: Any) -> None:
        self._class, self._name = type(layer), layer.name

    def __repr__(self) -> str:
        """Returns what Keras' errors call the layer."""
        return f"layer '{self._name}' ({self._class.__name__})"

    def from_config(self, config: Config) -> Any:
        """Returns the new layer, as Keras asks a class for it."""
        made = self._class.from_config(config)
        made.name = self._name
        return made


def _keep_names(model: keras.Model, config: Config) -> dict[str, _Maker]:
    """Has every custom layer made anew under its own name.

    Args:
        model: The model.
        config: Its config; changed in place.

    Returns:
        What makes them, for `custom_objects`.
    """
    makers: dict[str, _Maker] = {}
    first = len(config["layers"]) - len(model.layers)
    entries = config["layers"]
    if isinstance(model, keras.Sequential):
        for entry, layer in zip(entries[first:], model.layers, strict=True):
            entry["name"] = layer.name
    operations = {op.name: op for op in _operations(model)}
    for entry in entries:
        operation = operations.get(entry_name(entry))
        if operation is None:
            continue
        if is_flattened(operation):
            makers |= _keep_names(operation, entry["config"])
        elif is_custom(operation):
            key = f"keras_kddp>{id(operation)}"
            entry["registered_name"] = key
            makers[key] = _Maker(operation)
    return makers


def _keep_activations(model: keras.Model, config: Config) -> None:
    """Puts the very activation functions where a config has their names.

    Two functions may have the same name, one may shadow a name of Keras, and
    a lambda is not restored from its bytes.
    """
    operations = {op.name: op for op in _operations(model)}
    for entry in config["layers"]:
        operation: Any = operations.get(entry_name(entry))
        if is_flattened(operation):
            _keep_activations(operation, entry["config"])
        activation = getattr(operation, "activation", None)
        if (
            "activation" in entry["config"]
            and isinstance(activation, types.FunctionType)
            and _is_from_keras(type(operation).from_config)
        ):
            entry["config"]["activation"] = activation


def _custom_objects(model: keras.Model) -> dict[str, Any]:
    """Returns classes and functions that a user need not have registered."""
    found: dict[str, Any] = {}
    for operation in _operations(model):
        if is_flattened(operation):
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


def _is_from_keras(value: Any) -> bool:
    return value.__module__.startswith("keras.")


def _carry_flags(model: keras.Model, new_model: keras.Model) -> None:
    """Copies what configs leave out.

    A Sequential's `trainable`, a weight's own, and a nested model's policy.
    """
    if new_model.trainable != model.trainable:
        new_model.trainable = model.trainable  # and of every layer with it
    old_layers = layers_by_path(model)
    for name, layer in layers_by_path(new_model).items():
        if name not in old_layers:
            continue
        if layer.trainable != old_layers[name].trainable:
            layer.trainable = old_layers[name].trainable
        if is_flattened(layer):
            layer.dtype_policy = old_layers[name].dtype_policy
    for _, old, new in paired_variables(model, new_model):
        new.trainable = old.trainable


def paired_variables(
    old_model: keras.Model, new_model: keras.Model
) -> Iterator[tuple[str, keras.Variable, keras.Variable]]:
    """Pairs the variables of layers that two models have in common.

    Seed states of Dropout and its like are among them.

    Yields:
        The name of the layer ("outer/inner" in a nested model), its variable,
        and the variable of the new model.
    """
    successors = layers_by_path(new_model)
    for name, layer in layers_by_path(old_model).items():
        if name not in successors or is_flattened(layer):
            continue
        old, new = layer.variables, successors[name].variables
        if len(old) != len(new):  # a bias was gained, or a penalty went
            by_name = {variable.name: variable for variable in new}
            old = [variable for variable in old if variable.name in by_name]
            new = [by_name[variable.name] for variable in old]
        for old_variable, variable in zip(old, new, strict=True):
            yield name, old_variable, variable
