"""What Keras trains, which is not always what is trainable now."""

from typing import Any

import keras

from keras_kddp import _compat
from keras_kddp._compat.optimizers import optimized_weights
from keras_kddp.distillation.student_state import StudentState

Trained = frozenset[int]  # id of each trained variable and layer


def trained_now(state: StudentState) -> Trained:
    """Returns what a step would train that is made at this moment.

    Layers count too: BatchNormalization looks at its own flag.
    """
    return frozenset(
        [id(variable) for variable in state.trainable_variables]
        + [id(x) for x in _layers_with_weights(state) if x.trainable]
    )


def _layers_with_weights(state: StudentState) -> list[Any]:
    layers = _compat.all_layers(state.student)
    return [x for x in layers if x.weights and not _compat.all_layers(x)]


def check_trainable_unchanged(
    model: Any, state: StudentState, traced: Trained | None
) -> None:
    """Checks that `trainable` flags are what the compiled step was made with.

    It goes on with them, and an optimizer moves only what it was built for;
    but a removal makes the step anew.

    Args:
        model: The Distiller.
        state: What it trains.
        traced: What was trainable when the step was made; None without one.

    Raises:
        ValueError: If layers were frozen or unfrozen since.
    """
    optimizer = state.optimizer
    if optimizer is None or not model.compiled:
        return
    changed: set[int] = set()
    looks_again = model.run_eagerly or keras.backend.backend() == "torch"
    if traced is not None and not looks_again:
        changed |= traced ^ trained_now(state)
    if optimizer.built:
        known = {*map(id, optimized_weights(optimizer))}
        changed |= {*map(id, state.trainable_variables)} - known
    if changed:
        names = [
            layer.name
            for layer in _layers_with_weights(state)
            if not changed.isdisjoint([*map(id, (layer, *layer.weights))])
        ]
        raise ValueError(
            "`trainable` must be what it was when training began, which is "
            "what Keras goes on with until it compiles again. Received a "
            f"student in which it changed since, in layers {names}. Set it "
            "back, or call compile() again."
        )
