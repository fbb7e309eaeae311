"""A removal, planned in full before anything is built."""

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from keras_kddp.model_io import to_numpy
from keras_kddp.surgery.calls import layers_by_path
from keras_kddp.surgery.checks import SurgeryError, variable_named
from keras_kddp.surgery.folding import Constants, fold_constants
from keras_kddp.surgery.graph import ChannelGraph
from keras_kddp.surgery.rebuild import (
    Config,
    entries_by_path,
    paired_variables,
    rebuild,
)
from keras_kddp.surgery.request import listed, requested_groups

Slices = Mapping[int, tuple[int, ...]]  # axis -> kept indices


@dataclass(frozen=True, eq=False)
class RemovalPlan:
    """A removal that was checked and can be built, printed or kept.

    Attributes:
        model: The model it was made for; never changed.
        removed: Layer name -> indices of the units that go.
        widths: Layer name -> its units before, of the same layers.
        slices: Layer name -> weight name -> axis -> kept indices.
        arguments: Layer name -> config argument -> its new value.
        folds: Layer name -> what its bias gains, one number a unit of the
            layer as it was when the plan was made.
        constants: Layer name -> unit -> what its activity is held at.
        errors: Layer name -> how far its outputs are off at most, before its
            activation, where the plan is approximate; measured on an image of
            the constants.
    """

    model: keras.Model = field(repr=False)
    removed: Mapping[str, tuple[int, ...]]
    widths: Mapping[str, int] = field(repr=False)
    slices: Mapping[str, Mapping[str, Slices]] = field(repr=False)
    arguments: Mapping[str, Mapping[str, Any]] = field(repr=False)
    folds: Mapping[str, tuple[float, ...]] = field(repr=False)
    constants: Constants = field(repr=False)
    errors: Mapping[str, float] = field(repr=False)

    def __str__(self) -> str:
        """Returns the dry run: what goes, layer by layer."""
        if not self.removed:
            return "Nothing is removed."
        lines = [
            f"{name}: {self.widths[name]} -> {self.widths[name] - len(units)} "
            f"units, without {_abbreviate(units)}"
            for name, units in self.removed.items()
        ]
        for name, weights in self.slices.items():
            shrunk = ", ".join(
                f"{weight} axis {axis} to {len(kept)}"
                for weight, axes in weights.items()
                for axis, kept in axes.items()
            )
            lines.append(f"  {name}: {shrunk}")
        for name in self.folds:
            error = self.errors.get(name, 0.0)
            off = f", off by {error:.3g} at the border" if error else ""
            lines.append(f"  {name}: constants fold into bias{off}")
        return "\n".join(lines)

    def build(self) -> keras.Model:
        """Returns a new, smaller model; the planned one is left as it is.

        Layer names, trainable flags, dtypes and seed states are carried over.
        The global random state is not touched. The new model is uncompiled.
        Weights are taken, and constants folded, as they are at this moment.

        Raises:
            SurgeryError: If the weights have changed since the plan was made
                so that a constant can no longer be folded.
        """
        plan = self
        if self.folds:  # of the weights as they are now
            graph = ChannelGraph(self.model)
            plan = plan_on(
                graph,
                self.removed,
                constants=self.constants,
                approximate=bool(self.errors),
            )
        return plan._built()

    def _built(self) -> keras.Model:
        model = rebuild(self.model, self._edit)
        for old, new, axes in self.transfers(model):
            new.assign(take(to_numpy(old), axes))
        self._fold(model)
        return model

    def _fold(self, model: keras.Model) -> None:
        old_layers = layers_by_path(self.model)
        layers = layers_by_path(model)
        for name, increments in self.folds.items():
            gone = set(self.removed.get(name, ()))
            kept = [g for i, g in enumerate(increments) if i not in gone]
            had_bias = any(v.name == "bias" for v in old_layers[name].weights)
            bias = variable_named(layers[name], "bias")
            # A gained bias holds what its initializer drew.
            bias.assign((to_numpy(bias) if had_bias else 0) + np.asarray(kept))

    def _edit(self, config: Config) -> None:
        for name, entry in entries_by_path(config):
            entry["config"].update(self.arguments.get(name, {}))
            if name in self.slices:
                _forget_arrays(entry["config"])
            if name in self.folds and "use_bias" in entry["config"]:
                entry["config"]["use_bias"] = True

    def transfers(
        self, new_model: keras.Model
    ) -> Iterator[tuple[keras.Variable, keras.Variable, Slices]]:
        """Pairs each variable of the model with its successor.

        Args:
            new_model: What `build` returned.

        Yields:
            The old variable, the new one, and the kept indices by axis.
        """
        for name, old, new in paired_variables(self.model, new_model):
            yield old, new, self.slices.get(name, {}).get(old.name, {})

    def gained_biases(self) -> int:
        """Returns how many entries the biases have that folding adds."""
        layers = layers_by_path(self.model)
        return sum(
            len(increments) - len(self.removed.get(name, ()))
            for name, increments in self.folds.items()
            if all(weight.name != "bias" for weight in layers[name].weights)
        )

    def kept_channels(self, tensor: Any) -> list[int]:
        """Returns which entries of a tensor's last axis stay.

        Args:
            tensor: Symbolic tensor of the model's own graph.
        """
        graph = ChannelGraph(self.model)
        channels = graph.channels.get(id(tensor))
        last = len(tensor.shape) - 1
        if channels is None or channels.axis != last:
            return list(range(tensor.shape[-1]))
        gone = {
            int(graph.roots[graph.units[name][unit]])
            for name, units in self.removed.items()
            for unit in units
        }
        roots = graph.roots[channels.labels].tolist()
        return [i for i, root in enumerate(roots) if root not in gone]

    def to_json(self) -> str:
        """Returns the plan as JSON text, without the model."""
        return json.dumps(
            {
                "removed": self.removed,
                "arguments": self.arguments,
                "slices": self.slices,
                "folds": self.folds,
                "errors": self.errors,
            }
        )


def plan_removal(
    model: keras.Model,
    units: Mapping[str, Sequence[int]],
    *,
    constants: Constants | None = None,
    approximate: bool = False,
) -> RemovalPlan:
    """Returns the plan that takes units out of a model; builds nothing yet.

    The planned model equals, at inference, the model in which the activity of
    each removed unit is held at its constant.

    Args:
        model: A built Sequential or Functional model; only read.
        units: Layer name -> indices of the units to remove.
        constants: Layer name -> unit -> the value its activity is held at; 0
            where nothing is said. What arrives at a consumer as non-zero is
            folded into that consumer's bias.
        approximate: Fold too what is exact but for the border of an image,
            where a convolution pads with zeros. `plan.errors` has the measured
            error, and `str(plan)` shows it.

    Returns:
        A frozen plan; `str(plan)` is the dry run.

    Raises:
        SurgeryError: If a layer or unit does not exist, cannot go, would go
            without its partners, would leave a layer empty, or leaves a
            constant behind that no bias can express.

    Example:
        ```python
        plan = keras_kddp.plan_removal(model, {"fc": [3, 17]})
        print(plan)
        smaller = plan.build()
        ```
    """
    return plan_on(
        ChannelGraph(model),
        units,
        constants=constants,
        approximate=approximate,
    )


def plan_on(
    graph: ChannelGraph,
    units: Mapping[str, Sequence[int]],
    *,
    constants: Constants | None = None,
    approximate: bool = False,
) -> RemovalPlan:
    """Returns `plan_removal` on a graph that was read already."""
    roots = requested_groups(graph, units, constants or {})
    folding = fold_constants(
        graph,
        roots,
        constants or {},
        training=False,
        approximate=approximate,
    )
    for root, reason in folding.refusals.items():
        raise SurgeryError(
            f"Units {listed(graph.groups()[root].members)} cannot be removed: "
            f"{reason}."
        )
    gone = np.isin(graph.roots, list(roots))
    removed = {
        name: tuple(np.flatnonzero(gone[labels]).tolist())
        for name, labels in graph.units.items()
        if gone[labels].any()
    }
    for name, indices in removed.items():
        if len(indices) == len(graph.units[name]):
            raise SurgeryError(
                f"Layer '{name}' must keep at least one unit. Received all "
                f"{len(indices)} of its units for removal. Leave one out."
            )
    return RemovalPlan(
        model=graph.model,
        removed=removed,
        widths={name: len(graph.units[name]) for name in removed},
        slices=_slices(graph, gone),
        arguments=_arguments(graph, gone),
        constants=constants or {},
        folds={
            name: tuple(increments.tolist())
            for name, increments in folding.increments.items()
        },
        errors=folding.errors,
    )


def remove_units(
    model: keras.Model,
    units: Mapping[str, Sequence[int]],
    *,
    constants: Constants | None = None,
    approximate: bool = False,
) -> keras.Model:
    """Returns a new model without some units; the input model is untouched.

    The same as `plan_removal(...).build()`.

    Args:
        model: A built Sequential or Functional model.
        units: Layer name -> indices of the units to remove.
        constants: Layer name -> unit -> the value its activity is held at.
        approximate: See `plan_removal`; the measured error is warned of.

    Returns:
        The smaller model, uncompiled.

    Raises:
        SurgeryError: See `plan_removal`.
    """
    plan = plan_removal(
        model, units, constants=constants, approximate=approximate
    )
    if plan.errors:
        listed = ", ".join(f"{n} by {e:.3g}" for n, e in plan.errors.items())
        warnings.warn(
            "`approximate=True`: at the border of the image, before the "
            f"activation, the outputs of these layers are off: {listed}.",
            stacklevel=2,
        )
    return plan.build()


def take(value: np.ndarray, axes: Slices) -> np.ndarray:
    """Returns the kept part of an array.

    Args:
        value: Any array.
        axes: Axis -> kept indices.
    """
    for axis, kept in axes.items():
        value = np.take(value, kept, axis=axis)
    return value


def _slices(
    graph: ChannelGraph, gone: np.ndarray
) -> Mapping[str, Mapping[str, Slices]]:
    slices: dict[str, dict[str, dict[int, tuple[int, ...]]]] = {}
    for name, axes in graph.records.slices.items():
        for (variable, axis), labels in axes.items():
            if gone[labels].any():
                kept = tuple(np.flatnonzero(~gone[labels]).tolist())
                by_axis = slices.setdefault(name, {}).setdefault(variable, {})
                by_axis[axis] = kept
    return slices


def _forget_arrays(config: Config) -> None:
    """Replaces initializers that hold arrays: of the shape from before."""
    for key, value in config.items():
        if not key.endswith("_initializer") or not isinstance(value, dict):
            continue
        given = value.get("config", {})
        if any(isinstance(x, (dict, list)) for x in given.values()):
            config[key] = "zeros"  # the weights are assigned afterwards


def _arguments(
    graph: ChannelGraph, gone: np.ndarray
) -> Mapping[str, Mapping[str, Any]]:
    """Returns layer name -> config argument -> its value without channels."""
    arguments: dict[str, dict[str, Any]] = {}
    for name, counted in graph.records.arguments.items():
        for (argument, position), labels in counted.items():
            if not gone[labels].any():
                continue
            kept: Any = int((~gone[labels]).sum())
            if position is not None:
                value = list(getattr(graph.operation(name), argument))
                value[position] = kept
                kept = tuple(value)
            arguments.setdefault(name, {})[argument] = kept
    return arguments


def _abbreviate(units: Sequence[int]) -> str:
    shown = ", ".join(map(str, units[:12]))
    return shown + (f" and {len(units) - 12} more" if len(units) > 12 else "")
