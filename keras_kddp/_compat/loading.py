"""What Keras makes while it reads a config, seen before it is made."""

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras

_turn = threading.RLock()


@contextlib.contextmanager
def checked_weights(
    check: Callable[[tuple[int, ...]], None],
) -> Iterator[None]:
    """Calls a check with the shape of every weight before it is made.

    Keras allocates in `Layer.add_weight`, while it reads a config, and asks
    nobody before. Threads take turns: two that put it back in another order
    than they replaced it would leave one's check in place for good.

    Args:
        check: Raises where a weight is not to be made.
    """
    thread = threading.get_ident()
    with _turn:
        original = keras.layers.Layer.add_weight

        @functools.wraps(original)
        def add_weight(self: Any, *args: Any, **kwargs: Any) -> Any:
            if threading.get_ident() == thread:
                check(_shape_of(args, kwargs))
            return original(self, *args, **kwargs)

        keras.layers.Layer.add_weight = add_weight
        try:
            yield
        finally:
            keras.layers.Layer.add_weight = original


def _shape_of(
    args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[int, ...]:
    """Returns the shape that `add_weight` is asked for."""
    shape = kwargs.get("shape") or next(
        (each for each in args if isinstance(each, (tuple, list))), ()
    )
    return tuple(shape) if isinstance(shape, (tuple, list)) else (shape,)
