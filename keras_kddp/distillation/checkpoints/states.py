"""The states of a model that checkpoints go into."""

from typing import Any

from keras_kddp.distillation.distiller import Distiller
from keras_kddp.distillation.student_state import StudentState
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


def check_built(model: Any) -> None:
    """Checks that a model has what a checkpoint goes into.

    Args:
        model: When its training begins; a Distiller's student always has.

    Raises:
        ValueError: If the model has no weights yet.
    """
    if isinstance(model, Distiller) or model.optimizer.built:
        return
    if not (model.built and model.weights):
        raise ValueError(
            "The model must have its weights when training begins, for those "
            f"of a checkpoint to go into. Received: {type(model).__name__} "
            f"'{model.name}', which the first step would build. Call it once, "
            "as model(x[:1]), before fit; a Sequential can begin with "
            "keras.Input."
        )
