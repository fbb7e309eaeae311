"""What Keras makes while it reads a config, seen before it is made."""

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import keras


@contextlib.contextmanager
def checked_weights(
    check: Callable[[tuple[int, ...]], None],
) -> Iterator[None]:
    """Calls a check with the shape of every weight before it is made.

    Keras allocates in `Layer.add_weight`, while it reads a config, and asks
    nobody before.

    Args:
        check: Raises where a weight is not to be made.
    """
    original, thread = keras.layers.Layer.add_weight, threading.get_ident()

    @functools.wraps(original)
    def add_weight(self: Any, *args: Any, **kwargs: Any) -> Any:
        if threading.get_ident() == thread:
            shape = kwargs.get("shape") or next(
                (each for each in args if isinstance(each, (tuple, list))), ()
            )
            check(
                tuple(shape) if isinstance(shape, (tuple, list)) else (shape,)
            )
        return original(self, *args, **kwargs)

    keras.layers.Layer.add_weight = add_weight
    try:
        yield
    finally:
        keras.layers.Layer.add_weight = original
