"""What was given for each output of a model, in the order of its outputs."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from keras_kddp.model_io import Arrays


def by_output(
    given: Any, structure: Arrays, names: Sequence[str]
) -> list[Any] | None:
    """Returns one value for each flat output, None where none was given.

    Args:
        given: Values in the structure of the outputs, in which keys may be
            missing; or a dict by the names of the outputs, or a list with one
            value each, as Keras takes them too.
        structure: The outputs.
        names: Of the flat outputs; [] of a model without a graph.

    Returns:
        The values, or None where they do not fit the outputs.
    """
    count = len(keras.tree.flatten(structure))
    found: list[Any] = [None] * count
    numbers = keras.tree.pack_sequence_as(structure, [*range(count)])
    if keras.tree.is_nested(structure) and _put(found, numbers, given):
        return found
    found = [None] * count
    if isinstance(given, Mapping):
        if len(set(names)) == count and set(given) <= set(names):
            return [given.get(name) for name in names]
        if names or isinstance(structure, Mapping):
            return None
    if isinstance(given, Sequence) and len(given) == count:
        return list(given)
    flat = keras.tree.flatten(given)
    return flat if len(flat) == count else None


def keys_of_outputs(structure: Arrays, names: Sequence[str]) -> list[str]:
    """Returns what each flat output is called: its key in a dict, else a name.

    Args:
        structure: The outputs.
        names: Of the flat outputs, or [].
    """
    count = len(keras.tree.flatten(structure))
    is_flat = isinstance(structure, Mapping) and len(structure) == count
    if is_flat and not any(map(keras.tree.is_nested, structure.values())):
        places = keras.tree.pack_sequence_as(structure, [*range(count)])
        return sorted(places, key=lambda key: int(places[key]))
    is_unique = len(set(names)) == count
    return list(names) if is_unique else [*map(str, range(count))]


def _put(found: list[Any], numbers: Any, given: Any) -> bool:
    """Puts values at the numbers of their outputs; says whether they fit."""
    if not keras.tree.is_nested(numbers):
        found[numbers] = given
        return True
    if given is None:
        return True
    if isinstance(numbers, Mapping):
        return (
            isinstance(given, Mapping)
            and set(given) <= set(numbers)
            and all(_put(found, numbers[key], given[key]) for key in given)
        )
    return (
        isinstance(given, (list, tuple))
        and len(given) == len(numbers)
        and all(map(_put, [found] * len(numbers), numbers, given))
    )
