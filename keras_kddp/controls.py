"""The runs that a comparison is made of, all under the same rules."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from keras_kddp.datasets import Dataset, Split
from keras_kddp.distiller import Distiller
from keras_kddp.preparation import finalize


@dataclass(frozen=True)
class Recipe:
    """How every student of a comparison is trained.

    AdamW without weight decay, on a cosine from `learning_rate` to 0.

    Attributes:
        epochs: Passes over the training split.
        batch_size: Examples a step.
        learning_rate: At the start.
        temperature: Of the soft targets.
        student_loss_weight: Share of the hard loss.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    temperature: float = 4.0
    student_loss_weight: float = 0.1

    def optimizer(self, examples: int) -> keras.optimizers.Optimizer:
        """Returns a fresh optimizer for a training split of this size."""
        steps = self.epochs * -(-examples // self.batch_size)
        return keras.optimizers.AdamW(
            keras.optimizers.schedules.CosineDecay(self.learning_rate, steps),
            weight_decay=0.0,
        )


def train_supervised(
    model: keras.Model,
    data: Dataset,
    recipe: Recipe,
    *,
    seed: int,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> keras.Model:
    """Trains a model on the labels alone, in place, and returns it.

    Args:
        model: Ends in logits.
        data: Its train split is learned from; validation is logged.
        recipe: Epochs, batches, learning rate.
        seed: Of shuffling and Dropout.
        callbacks: Keras callbacks.
    """
    keras.utils.set_random_seed(seed)
    model.compile(
        optimizer=recipe.optimizer(len(data.train.y)),
        loss=hard_loss(),
        metrics=["accuracy"],
    )
    _fit(model, data, recipe, callbacks)
    return model


def train_distilled(
    teacher: keras.Model,
    student: keras.Model,
    data: Dataset,
    recipe: Recipe,
    *,
    seed: int,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> tuple[keras.Model, Any]:
    """Trains a student under a teacher.

    Args:
        teacher: Trained; ends in logits or softmax.
        student: Trained in place, or replaced by `DynamicPruning`.
        data: Its train split is learned from; validation is logged.
        recipe: The same for every student of a comparison.
        seed: Of shuffling and Dropout.
        callbacks: Keras callbacks.

    Returns:
        The plain student (`keras_kddp.finalize`) and the Keras History.
    """
    keras.utils.set_random_seed(seed)
    distiller = Distiller(
        teacher,
        student,
        student_loss_weight=recipe.student_loss_weight,
        temperature=recipe.temperature,
    )
    distiller.compile(
        optimizer=recipe.optimizer(len(data.train.y)),
        loss=hard_loss(),
        metrics=["accuracy"],
    )
    history = _fit(distiller, data, recipe, callbacks)
    return finalize(distiller.student), history


def fresh(make: Callable[[], keras.Model], seed: int) -> keras.Model:
    """Returns a new model whose first weights depend on the seed alone."""
    keras.utils.set_random_seed(seed)
    return make()


def accuracy(model: keras.Model, split: Split) -> float:
    """Returns the share of right answers of a model on a split."""
    answers = model.predict(split.x, verbose=0).argmax(axis=-1)
    return float((answers == split.y).mean())


def hard_loss() -> keras.losses.Loss:
    """Returns cross-entropy on logits and class numbers."""
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def _fit(
    model: keras.Model,
    data: Dataset,
    recipe: Recipe,
    callbacks: Sequence[keras.callbacks.Callback],
) -> Any:
    return model.fit(
        data.train.x,
        data.train.y,
        validation_data=(data.validation.x, data.validation.y),
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        callbacks=list(callbacks),
        verbose=0,
    )
