"""A removal, planned in full before anything is built."""

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from keras_kddp.model_io import Tensor, to_numpy
from keras_kddp.surgery.calls import layers_by_path
from keras_kddp.surgery.constant_walk import Constants
from keras_kddp.surgery.cuts import (
    Slices,
    forget_arrays,
    kept_channels,
    kept_slices,
    new_arguments,
    take,
)
from keras_kddp.surgery.folding import fold_constants, raise_biases
from keras_kddp.surgery.graph import ChannelGraph
from keras_kddp.surgery.layer_state import carry_layer_state
from keras_kddp.surgery.rebuild import (
    Config,
    entries_by_path,
    paired_variables,
    rebuild,
)
from keras_kddp.surgery.request import (
    leaving_units,
    requested_groups,
    require_foldable,
)


@dataclass(frozen=True, eq=False)
class RemovalPlan:
    """A removal that was checked and can be built, printed or kept.

    Attributes:
        model: The model it was made for; never changed.
        removed: Layer name -> indices of the units that go.
        widths: Layer name -> its units before, of the same layers.
        slices: Layer name -> weight name -> axis -> kept indices.
        arguments: Layer name -> config argument -> its new value.
        folds: Layer name -> what its bias gains, one number per unit of
            the layer as it was when the plan was made.
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
        return self.as_of_now().build_as_planned()

    def as_of_now(self) -> "RemovalPlan":
        """Returns the plan with the folds that follow from present weights.

        Raises:
            SurgeryError: If a constant can no longer be folded.
        """
        if not self.folds:
            return self
        return plan_on(
            ChannelGraph(self.model),
            self.removed,
            constants=self.constants,
            approximate=bool(self.errors),
        )

    def build_as_planned(self) -> keras.Model:
        """Builds without looking whether the folded constants still hold."""
        model = self.build_unfolded()
        raise_biases(self.model, model, self.folds, self.removed)
        return model

    def build_unfolded(self) -> keras.Model:
        """Returns the smaller model before its biases take constants in."""
        model = rebuild(self.model, self._edit)
        for old, new, axes in self.transfers(model):
            new.assign(take(to_numpy(old), axes))
        carry_layer_state(self.model, model, {*self.slices, *self.folds})
        return model

    def _edit(self, config: Config) -> None:
        for name, entry in entries_by_path(config):
            entry["config"].update(self.arguments.get(name, {}))
            if name in self.slices:
                forget_arrays(entry["config"])
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

    def kept_channels(self, tensor: Tensor) -> list[int]:
        """Returns which entries of a tensor's last axis stay.

        Args:
            tensor: Symbolic tensor of the model's own graph.
        """
        graph = ChannelGraph(self.model)
        return kept_channels(graph, self.removed, tensor)

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
    folds: Mapping[str, tuple[float, ...]] | None = None,
) -> RemovalPlan:
    """Returns `plan_removal` on a graph that was read already.

    Where the `folds` are known, the weights are not looked at.
    """
    errors: Mapping[str, float] = {}
    constants = constants or {}
    groups = requested_groups(graph, units, constants)
    if folds is None:
        folding = fold_constants(
            graph, groups, constants, training=False, approximate=approximate
        )
        require_foldable(graph, folding)
        errors, found = folding.errors, folding.increments
        folds = {name: tuple(gained.tolist()) for name, gained in found.items()}
    gone = np.isin(graph.group_numbers, list(groups))
    removed = leaving_units(graph, gone)
    return RemovalPlan(
        model=graph.model,
        removed=removed,
        widths={name: len(graph.units[name]) for name in removed},
        slices=kept_slices(graph, gone),
        arguments=new_arguments(graph, gone),
        constants=constants,
        folds=folds,
        errors=errors,
    )


def remove_units(
    model: keras.Model,
    units: Mapping[str, Sequence[int]],
    *,
    constants: Constants | None = None,
    approximate: bool = False,
) -> keras.Model:
    """Returns a new model without some units; the input model is untouched.

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


def _abbreviate(units: Sequence[int]) -> str:
    shown = ", ".join(map(str, units[:12]))
    return shown + (f" and {len(units) - 12} more" if len(units) > 12 else "")
