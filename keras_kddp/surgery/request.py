"""What a removal asks for, checked against the model."""

from collections.abc import Iterable, Mapping, Sequence
from numbers import Real

import numpy as np

from keras_kddp.surgery.checks import SurgeryError
from keras_kddp.surgery.constant_walk import Constants
from keras_kddp.surgery.folding import Folding
from keras_kddp.surgery.graph import ChannelGraph


def requested_groups(
    graph: ChannelGraph,
    units: Mapping[str, Sequence[int]],
    constants: Constants,
) -> set[int]:
    """Returns the numbers of the groups that a removal asks for.

    Args:
        graph: The channels of the model.
        units: Layer name -> indices of the units to remove.
        constants: Layer name -> unit -> value its activity is held at.

    Raises:
        SurgeryError: If a layer or unit does not exist, cannot go or would go
            without its partners, or a constant is none or for another unit.
    """
    _require_mapping("units", units)
    wanted = {
        (name, unit)
        for name, indices in units.items()
        for unit in _check_units(graph, name, indices)
    }
    numbers = _complete_groups(graph, wanted)
    _check_constants(wanted, constants)
    return numbers


def require_foldable(graph: ChannelGraph, folding: Folding) -> None:
    """Checks that what the units of a request leave behind can be folded.

    Raises:
        SurgeryError: If a constant cannot become part of a bias.
    """
    for number, reason in folding.refusals.items():
        raise SurgeryError(
            f"Units {_list(graph.groups()[number].members)} cannot be removed: "
            f"{reason}."
        )


def leaving_units(
    graph: ChannelGraph, gone: np.ndarray
) -> dict[str, tuple[int, ...]]:
    """Returns the units of the groups that leave.

    Args:
        graph: The channels of the model.
        gone: (labels,) bool: whether a label's group leaves.

    Returns:
        Layer name -> indices of its units that go, of the layers that lose
        any.

    Raises:
        SurgeryError: If a layer would lose all its units.
    """
    leaving = {
        name: tuple(np.flatnonzero(gone[labels]).tolist())
        for name, labels in graph.units.items()
        if gone[labels].any()
    }
    for name, indices in leaving.items():
        if len(indices) == len(graph.units[name]):
            raise SurgeryError(
                f"Layer '{name}' must keep at least one unit. Received all "
                f"{len(indices)} of its units for removal. Leave one out."
            )
    return leaving


def _list(members: Sequence[tuple[str, int]]) -> str:
    """Returns units for people: "fc[0], fc[1] and 3 more"."""
    shown = ", ".join(f"{name}[{unit}]" for name, unit in members[:6])
    return shown + (f" and {len(members) - 6} more" if len(members) > 6 else "")


def _check_units(
    graph: ChannelGraph, name: str, indices: Sequence[int]
) -> list[int]:
    """Returns the wanted units of a layer, each of which exists."""
    if name not in graph.units:
        raise SurgeryError(
            "`units` must name layers that have removable units: "
            f"{graph.removable_layers()}. Received: '{name}'."
        )
    count = len(graph.units[name])
    if not isinstance(indices, Iterable):
        raise SurgeryError(
            f"Units of layer '{name}' must be a list of integers. Received: "
            f"{indices!r}."
        )
    indices = list(indices)
    for index in indices:
        is_integer = isinstance(index, (int, np.integer))
        if not is_integer or isinstance(index, bool) or not 0 <= index < count:
            raise SurgeryError(
                f"Units of layer '{name}' must be integers from 0 to "
                f"{count - 1}. Received: {index!r}."
            )
    return [int(index) for index in indices]


def _complete_groups(
    graph: ChannelGraph, wanted: set[tuple[str, int]]
) -> set[int]:
    """Returns the groups of the wanted units, each wanted in full."""
    groups = graph.groups()
    numbers = {
        int(graph.group_numbers[graph.units[n][unit]]) for n, unit in wanted
    }
    for number in sorted(numbers):
        members, reason = groups[number]
        if reason:
            raise SurgeryError(
                f"Units {_list(members)} cannot be removed: {reason}."
            )
        missing = [member for member in members if member not in wanted]
        if missing:
            raise SurgeryError(
                f"Units {_list(members)} can only leave together. Received "
                f"without {_list(missing)}. Add them, or leave all of them."
            )
    return numbers


def _check_constants(
    wanted: set[tuple[str, int]], constants: Constants
) -> None:
    _require_mapping("constants", constants)
    for name, values in constants.items():
        _require_mapping(f"constants['{name}']", values)
        for unit, value in values.items():
            if (name, unit) not in wanted:
                raise SurgeryError(
                    "`constants` must be given for units that are removed. "
                    f"Received one for unit {unit!r} of layer '{name}'."
                )
            if not isinstance(value, Real) or not np.isfinite(value):
                raise SurgeryError(
                    "`constants` must be finite numbers. Received: "
                    f"{value!r} for unit {unit} of layer '{name}'."
                )


def _require_mapping(name: str, value: object) -> None:
    if not isinstance(value, Mapping):
        raise SurgeryError(
            f"`{name}` must be a dict, such as {{'fc': [3, 17]}} for `units` "
            "or {'fc': {3: 0.5}} for `constants`. Received: "
            f"{type(value).__name__}."
        )
