"""What TensorFlow keeps of a step that nobody runs any more."""

import contextlib
import gc
import inspect
from collections.abc import Iterator
from typing import Any

import keras

_ALL_REDUCE = "tensorflow.python.distribute.distribute_lib"


@contextlib.contextmanager
def forgotten_gradients() -> Iterator[None]:
    """Lets go of the gradient functions of a step that is traced here.

    TensorFlow registers the gradient function of each `custom_gradient` under
    a new name at every trace, for good, and with it the whole graph of the
    step: that of the sum over replicas in each optimizer, and of our penalty.
    Nobody asks for the gradient of a step. The registry has no public
    `unregister`. Those of graphs inside of the step stay: the function that
    has them may be called again.
    """
    registry = _gradient_registry()
    before = set(registry)
    try:
        yield
    finally:
        for name in registry.keys() - before:
            if _is_of_step(registry[name]["type"]):
                del registry[name]


def free_old_graphs() -> None:
    """Frees the graphs, models and optimizers that nobody holds any more.

    They refer to themselves in circles, so only the garbage collector finds
    them, and it would come late: it counts objects, not their size.

    TensorFlow moreover keeps a kernel for each variable that was ever made,
    until its cache is cleared, as `keras.utils.clear_session` does too.
    """
    gc.collect()
    if keras.backend.backend() == "tensorflow":
        from tensorflow.python.eager import context

        context.context().clear_kernel_cache()


def _gradient_registry() -> dict[str, Any]:
    """Returns what holds TensorFlow's gradient functions while it traces."""
    if keras.backend.backend() != "tensorflow":
        return {}
    import tensorflow as tf
    from tensorflow.python.framework import ops

    return {} if tf.executing_eagerly() else ops.gradient_registry._registry


def _is_of_step(gradient: Any) -> bool:
    """Says whether nobody but the step that is traced needs a gradient."""
    import tensorflow as tf

    function = _enclosed(gradient).get("tape_grad_fn")
    known = _enclosed(function)  # what `tf.custom_gradient` was told
    made = keras.tree.flatten(known.get("result"))
    step = tf.compat.v1.get_default_graph()
    return (
        step in [getattr(tensor, "graph", None) for tensor in made]
        or getattr(known.get("grad_fn"), "__module__", "") == _ALL_REDUCE
    )


def _enclosed(function: Any) -> dict[str, Any]:
    """Returns what a function has from the one around it."""
    if not inspect.isfunction(function):
        return {}
    return dict(inspect.getclosurevars(function).nonlocals)
