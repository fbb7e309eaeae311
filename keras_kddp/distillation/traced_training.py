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
    layers = _compat.all_layers(state.student)
    return frozenset(
        [id(variable) for variable in state.trainable_variables]
        + [id(x) for x in layers if x.trainable and x.variables]
    )


def check_trained(
    model: Any, state: StudentState, traced: Trained | None
) -> None:
    """Checks that flags say what is trained: a removal makes steps anew.

    A compiled step goes on with what was trainable when it was made, and an
    optimizer moves only what it was built for.

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
    changed: set[str] = set()
    looks_again = model.run_eagerly or keras.backend.backend() == "torch"
    if traced is not None and not looks_again:
        different = traced ^ trained_now(state)
        of_model = {id(x): x for x in _compat.all_layers(state.student)}
        changed |= {x.name for i, x in of_model.items() if i in different}
        changed |= {v.path for v in state.variables if id(v) in different}
    if optimizer.built:
        known = {id(weight) for weight in optimized_weights(optimizer)}
        trained = state.trainable_variables
        changed |= {v.path for v in trained if id(v) not in known}
    if changed:
        raise ValueError(
            "`trainable` must be what it was when training began, which is "
            "what Keras goes on with until it compiles again. Received a "
            f"student in which it changed since: {sorted(changed)}. Set it "
            "back, or call compile() again before the removal."
        )
