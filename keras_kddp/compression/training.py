"""How the models of a comparison are trained and judged, all alike."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras

from keras_kddp.compression.answers import Answers, mark_answers
from keras_kddp.compression.stages import NOT_KEPT, Callbacks, Stage
from keras_kddp.data.shuffling import shuffle_each_epoch
from keras_kddp.data.splits import Split
from keras_kddp.distillation.distiller import Distiller
from keras_kddp.distillation.loss_guard import with_loss_guard
from keras_kddp.layers.preparation import finalize
from keras_kddp.model_io import (
    all_outputs_and_masks,
    output_activations,
    output_structure,
)


@dataclass(frozen=True)
class Recipe:
    """How every student of a comparison is trained.

    Attributes:
        epochs: Passes over the training split.
        batch_size: Examples per step.
        optimizer: A name, or an optimizer that each run gets a copy of.
        loss: Hard loss of `(y, outputs)`.
        temperature: Of the soft targets.
        student_loss_weight: Share of the hard loss.
        seed: Of weights, shuffling and Dropout.
    """

    epochs: int
    batch_size: int
    optimizer: Any
    loss: Any
    temperature: float = 4.0
    student_loss_weight: float = 0.1
    seed: int = 0

    def fresh_optimizer(self) -> keras.optimizers.Optimizer:
        """Returns an optimizer that no run has used.

        Raises:
            ValueError: If there is none of this name.
        """
        if isinstance(self.optimizer, keras.optimizers.Optimizer):
            config = self.optimizer.get_config()
            return type(self.optimizer).from_config(config)
        try:
            return keras.optimizers.get(self.optimizer)
        except (TypeError, ValueError) as error:
            raise ValueError(
                "`optimizer` must be a Keras optimizer, or the name of one. "
                f"Received: {self.optimizer!r}. Try 'adam'."
            ) from error


@dataclass(frozen=True, eq=False)
class Setting:
    """What all runs of a comparison have in common.

    Attributes:
        start: The student as it starts; no run changes it.
        train: Training split, `x` packed with the teacher's outputs.
        validation: Validation split, packed as well; it is logged.
        recipe: How they train.
    """

    start: keras.Model
    train: Split
    validation: Split
    recipe: Recipe


def cosine_adamw(
    learning_rate: float, *, epochs: int, batch_size: int, examples: int
) -> keras.optimizers.Optimizer:
    """Returns AdamW without weight decay, on a cosine to 0 over a run.

    Args:
        learning_rate: At the start.
        epochs: Length of the run.
        batch_size: Examples per step.
        examples: Size of the training split.
    """
    steps = epochs * -(-examples // batch_size)
    return keras.optimizers.AdamW(
        keras.optimizers.schedules.CosineDecay(learning_rate, steps),
        weight_decay=0.0,
    )


def train_supervised(
    model: keras.Model,
    train: Split,
    validation: Split,
    recipe: Recipe,
    callbacks: Callbacks = (),
    stage: Stage = NOT_KEPT,
) -> keras.Model:
    """Trains a model on the labels alone, in place, and returns it.

    Args:
        model: A built classifier; compiled anew.
        train: What is learned from; `x` is plain.
        validation: What is logged beside; `x` is plain.
        recipe: Its epochs, batches, optimizer, loss and seed.
        callbacks: Keras callbacks.
        stage: Where it is kept, and goes on.
    """
    keras.utils.set_random_seed(recipe.seed)
    _compile(model, model, recipe)
    _fit(model, train, validation, recipe, callbacks, stage)
    return model


def train_distilled(
    student: keras.Model,
    common: Setting,
    callbacks: Callbacks = (),
    stage: Stage = NOT_KEPT,
) -> tuple[keras.Model, dict[str, list[float]]]:
    """Trains a student under the teacher.

    Args:
        student: Trained in place, or replaced by `DynamicPruning`.
        common: Data and rules.
        callbacks: Keras callbacks.
        stage: Where it is kept, and goes on.

    Returns:
        The plain student (`keras_kddp.finalize`) and the logs of the epochs.
    """
    recipe = common.recipe
    keras.utils.set_random_seed(recipe.seed)
    distiller = Distiller(
        None,
        student,
        student_loss_weight=recipe.student_loss_weight,
        temperature=recipe.temperature,
    )
    _compile(distiller, student, recipe)
    history = _fit(
        distiller, common.train, common.validation, recipe, callbacks, stage
    )
    return finalize(distiller.student), history


def default_loss(model: keras.Model) -> Any:
    """Returns cross-entropy on class numbers, for each output of a model.

    Args:
        model: Ends in logits or softmax.

    Returns:
        A Keras loss, or a structure of them like the model's outputs.
    """
    losses = [
        keras.losses.SparseCategoricalCrossentropy(
            from_logits=activation != "softmax"
        )
        for activation in output_activations(model)
    ]
    return keras.tree.pack_sequence_as(output_structure(model), losses)


def fresh(make: Callable[[], keras.Model], seed: int) -> keras.Model:
    """Returns a new model whose first weights depend on the seed alone."""
    keras.utils.set_random_seed(seed)
    return make()


def answers_of(model: keras.Model, split: Split) -> Answers:
    """Returns which answers of a model on a split are right.

    Steps that Keras masks count nothing, as in Keras' own accuracy.

    Args:
        model: Each output (batch, ..., classes).
        split: Plain inputs and class numbers.
    """
    outputs, masks = all_outputs_and_masks(model, split.x)
    return mark_answers(outputs, masks, keras.tree.flatten(split.y))


def accuracy(model: keras.Model, split: Split) -> float:
    """Returns the share of right answers of a model on a split.

    Args:
        model: As `answers_of` takes it.
        split: As `answers_of` takes it; of several outputs the mean of their
            accuracies is returned.
    """
    return answers_of(model, split).accuracy


def _compile(
    trained: keras.Model, student: keras.Model, recipe: Recipe
) -> None:
    """Compiles with the accuracy of each output."""
    outputs = output_structure(student)
    metrics = keras.tree.map_structure(lambda _: ["accuracy"], outputs)
    is_single = isinstance(outputs, keras.KerasTensor)
    trained.compile(
        recipe.fresh_optimizer(),
        recipe.loss,
        metrics=["accuracy"] if is_single else metrics,
    )


def _fit(
    model: keras.Model,
    train: Split,
    validation: Split,
    recipe: Recipe,
    callbacks: Callbacks,
    stage: Stage,
) -> dict[str, list[float]]:
    """Trains, or takes what a former start has trained; returns the logs."""
    arguments = {
        "x": train.x,
        "y": train.y,
        "sample_weight": train.sample_weight,
        "validation_data": validation.as_tuple(),
        "epochs": recipe.epochs,
        "batch_size": recipe.batch_size,
        "verbose": 0,
    }

    def fit(callbacks: Callbacks) -> dict[str, list[float]]:
        given = {**arguments, "callbacks": list(callbacks)}
        if not isinstance(model, Distiller):  # which does both by itself
            given["callbacks"] = with_loss_guard(given["callbacks"])
            shuffle_each_epoch(given)
        history: dict[str, list[float]] = model.fit(**given).history
        return history

    return stage.trained(model, fit, callbacks)
