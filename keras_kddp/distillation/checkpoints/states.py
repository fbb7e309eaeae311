"""What is trained, a Distiller or another model, as checkpoints see it."""

from typing import Any

from keras_kddp.distillation.distiller import Distiller
from keras_kddp.distillation.student_state import Snapshot, StudentState
from keras_kddp.surgery.lineage import Lineage


class States:
    """Makes the states of lineages, each once.

    Args:
        model: What is trained; left as it is.
        start: Its state.
    """

    def __init__(self, model: Any, start: StudentState) -> None:
        self._model, self._start = model, start
        self._made = [start]

    def __call__(self, lineage: Lineage) -> StudentState:
        """Returns the state of a lineage."""
        for state in self._made:
            if state.lineage == lineage:
                return state
        made: StudentState = self._model.state_of(lineage, self._start)
        self._made.append(made)
        return made


def state_of_model(model: Any) -> StudentState:
    """Returns what is trained."""
    if isinstance(model, Distiller):
        return model.training_state()
    return StudentState(model, {}, model.optimizer)


def built_state(model: Any) -> StudentState:
    """Returns what is trained, with the state of its optimizer made.

    Raises:
        ValueError: If the model has no weights yet.
    """
    if isinstance(model, Distiller):
        model.build_optimizer()
    elif not model.optimizer.built:
        _check_built(model)
        model.optimizer.build(model.trainable_variables)
    return state_of_model(model)


def _check_built(model: Any) -> None:
    if not (model.built and model.weights):
        raise ValueError(
            "The model must have its weights when training begins, for those "
            f"of a checkpoint to go into. Received: {type(model).__name__} "
            f"'{model.name}', which the first step would build. Call it once, "
            "as model(x[:1]), before fit; a Sequential can begin with "
            "keras.Input."
        )


def put(model: Any, snapshot: Snapshot) -> None:
    """Puts a snapshot of a model into it."""
    if isinstance(model, Distiller):
        model.restore(snapshot)
    else:
        snapshot.restore_values()
