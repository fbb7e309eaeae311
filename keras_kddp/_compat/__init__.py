"""Every private Keras call, with the reason for it.

`tests/test_compat.py` fails when Keras changes one of them.
"""

import contextlib
import random
from collections.abc import Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
from keras.src.backend.common import global_state, masking
from keras.src.losses.loss import (
    scale_loss_for_distribution,
    unscale_loss_for_distribution,
)
from keras.src.saving.serialization_lib import SafeModeScope, in_safe_mode
from keras.src.utils import naming


class CallNode(NamedTuple):
    """One call of one operation in a model's graph.

    Attributes:
        operation: The layer or raw operation that was called.
        args: Its positional arguments; symbolic tensors are `KerasTensor`.
        kwargs: Its keyword arguments.
        inputs: Flat symbolic inputs.
        outputs: Flat symbolic outputs.
        name: Name of the operation; with those of the models around it,
            "outer/inner", where calls of nested models are listed.
    """

    operation: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]
    name: str


def functional_graph(model: keras.Model) -> Any:
    """Returns the `Functional` that computes `model`, or None.

    A Sequential keeps its graph in the private `_functional`; without it the
    tensors between its layers cannot be reached reliably.
    """
    if isinstance(model, keras.Sequential):
        return model._functional
    return model if hasattr(model, "_nodes_by_depth") else None


def call_nodes(model: keras.Model) -> list[CallNode]:
    """Returns the calls of a model's graph, inputs first.

    `_nodes_by_depth` is what `Functional.call` itself runs through; the public
    config names tensors but does not hand them out.
    """
    by_depth = functional_graph(model)._nodes_by_depth
    return [
        _call_node(node)
        for depth in sorted(by_depth, reverse=True)
        for node in by_depth[depth]
    ]


def all_layers(model: keras.Model) -> list[Any]:
    """Returns the layers of a model, those inside other layers included.

    The public `layers` stops at the first level.
    """
    return list(model._flatten_layers(include_self=False))


def automatic_name(layer_class: type) -> str:
    """Returns what Keras calls the first layer of a class, "dense".

    The public `layer.name` does not say who gave it.
    """
    return str(naming.to_snake_case(layer_class.__name__))


def producing_node(tensor: Any) -> CallNode:
    """Returns the call that made a symbolic tensor.

    `_keras_history` is the only way from a tensor back to its maker.
    """
    history = tensor._keras_history
    return _call_node(history.operation._inbound_nodes[history.node_index])


def _call_node(node: Any) -> CallNode:
    """Returns Keras' own node as ours."""
    return CallNode(
        node.operation,
        tuple(node.arguments.args),
        dict(node.arguments.kwargs),
        tuple(node.input_tensors),
        tuple(node.output_tensors),
        node.operation.name,
    )


def tensor_reference(tensor: Any, nodes: list[CallNode]) -> list[Any]:
    """Returns how a model's config names a symbolic tensor.

    Args:
        tensor: A tensor of the model.
        nodes: The model's `call_nodes`.

    Returns:
        `[operation name, call index, output index]`. The config counts only
        the calls inside the model; `_keras_history` counts all.
    """
    history = tensor._keras_history
    own = sorted(
        {
            node.outputs[0]._keras_history.node_index
            for node in nodes
            if node.operation is history.operation
        }
    )
    call_index = own.index(history.node_index)
    return [history.operation.name, call_index, history.tensor_index]


@contextlib.contextmanager
def untouched_seeds() -> Iterator[None]:
    """Leaves Python's, NumPy's and Keras' global random state as it was.

    Keras draws layer and initializer seeds from Python's `random`; its own
    global generator is kept in the private `global_state`.
    """
    python_state = random.getstate()
    numpy_state = np.random.get_state()
    generator = global_generator()
    state = None if generator is None else np.array(generator.state)
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        if generator is not None:
            generator.state.assign(state)
        set_global_generator(generator)


def global_generator() -> Any:
    """Returns Keras' global SeedGenerator; None before it was used."""
    return global_state.get_global_attribute("global_seed_generator")


def set_global_generator(generator: Any) -> None:
    """Puts another global SeedGenerator in place, or none."""
    global_state.set_global_attribute("global_seed_generator", generator)


def random_seed() -> int | None:
    """Returns what `keras.utils.set_random_seed` was last given, or None.

    Keras' own `get_random_seed` is not exported.
    """
    seed = global_state.get_global_attribute("global_random_seed")
    return None if seed is None else int(seed)


def compiled_loss(
    model: keras.Model, y: Any, y_pred: Any, sample_weight: Any
) -> Any:
    """Returns the loss given to `compile`, without the added losses.

    `compute_loss` would add every regularizer of the model, the teacher's
    among them; the compiled loss alone is only in `_compile_loss`.
    """
    return model._compile_loss(y, y_pred, sample_weight)


def keras_mask(tensor: Any) -> Any:
    """Returns which steps of a tensor count, or None; no public getter."""
    return masking.get_keras_mask(tensor)


def losses_kept_by_jax(model: keras.Model) -> list[Any]:
    """Returns the layers' losses, which only the trained model has on JAX."""
    return model._losses_override


def share_of_replica(loss: Any) -> Any:
    """Divides a loss by the number of replicas under `tf.distribute`.

    Keras' own Loss objects do it; optimizers then sum the gradients.
    """
    return scale_loss_for_distribution(loss)


def whole_of_replicas(loss: Any) -> Any:
    """Undoes `share_of_replica`, for a metric that averages over replicas."""
    return unscale_loss_for_distribution(loss)


def replace_sublayer(parent: keras.Layer, name: str, new: keras.Layer) -> None:
    """Sets `parent.name = new` on a built layer, in the old one's place.

    The tracker of a built layer is locked, and remove + append would change
    the order that `load_model` relies on.
    """
    tracker = parent._tracker
    was_locked = tracker.locked
    tracker.unlock()
    try:
        tracker.replace_tracked_value("layers", getattr(parent, name), new)
        setattr(parent, name, new)
    finally:
        if was_locked:
            tracker.lock()


def forget_compiled_functions(model: keras.Model) -> None:
    """Makes the next step trace anew; inside `fit` too.

    `fit` looks `train_function` up at every step. JAX keeps the variables of
    the old student in `_jax_state`.
    """
    model.test_function = None
    model.predict_function = None
    if keras.backend.backend() == "jax":
        model._jax_state = None
        model._jax_state_synced = True
    # Keras notes there what was trainable when it compiled, by layer: the old
    # student's layers are let go. A new dict, since TensorFlow tracks the old.
    del model._compiled_trainable_state
    model._compiled_trainable_state = {
        layer: layer.trainable for layer in model._flatten_layers()
    }
    # Saving asks there for the optimizer: the first one, with its state.
    model._compile_config.config["optimizer"] = model.optimizer
    model.make_train_function(force=True)


def given_metrics(model: keras.Model) -> list[Any]:
    """Returns compiled metrics; public ones exist from the first batch on."""
    made = getattr(model, "_compile_metrics", None)
    given = made and [made._user_metrics, made._user_weighted_metrics]
    return [x for x in keras.tree.flatten(given) if x is not None]


def compiled_metrics(model: keras.Model) -> Any:
    """Returns the metrics in the structure that `compile` was given, or None.

    The public ones are flat, and exist from the first batch on.
    """
    made = getattr(model, "_compile_metrics", None)
    return made and made._user_metrics


def adopted_variable(
    variable: Any, name: str, *, trainable: bool
) -> keras.Variable:
    """Returns a Keras variable that is a given tf.Variable, not its copy.

    Only the private `_value` can be set from outside; without it, what a
    SavedModel computes would not see what Keras trains.
    """
    adopted = keras.Variable(
        variable, dtype=variable.dtype.name, trainable=trainable, name=name
    )
    adopted._value = variable
    return adopted


def is_in_safe_mode() -> bool | None:
    """Says whether Keras reads a config in safe mode; None: it reads none.

    Keras hands the flag to nested objects in the private `global_state` only.
    """
    return in_safe_mode()


def safe_mode() -> contextlib.AbstractContextManager[Any]:
    """Returns a scope in which everything is read in safe mode.

    The argument of `load_model` loses to
    `keras.config.enable_unsafe_deserialization()`; the private scope does not.
    """
    return SafeModeScope(True)
