"""The runs that a comparison is made of, all under the same rules."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from keras_kddp.activity import activity_on, sampled
from keras_kddp.criteria import contribution
from keras_kddp.distiller import Distiller
from keras_kddp.losses import output_activations, output_structure
from keras_kddp.packing import unpacked
from keras_kddp.preparation import finalize, prepare
from keras_kddp.selection import group_maxima, group_scores, lowest_units
from keras_kddp.splits import Split
from keras_kddp.surgery.graph import ChannelGraph
from keras_kddp.surgery.plan import plan_on
from keras_kddp.surgery.rebuild import rebuild

CONTROLS = {
    "kd": "student, no penalty",
    "same_size": "same size from scratch",
    "same_size_labels": "same size, no teacher",
    "random": "random cut half-way",
    "magnitude": "magnitude cut half-way",
    "contribution": "contribution cut half-way",
}
"""What each control is, by name."""

SAMPLES = 4096
"""So many training examples are observed at most, as by `DynamicPruning`."""


@dataclass(frozen=True)
class Recipe:
    """How every student of a comparison is trained.

    Attributes:
        epochs: Passes over the training split.
        batch_size: Examples a step.
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
        """Returns an optimizer that no run has used."""
        if isinstance(self.optimizer, keras.optimizers.Optimizer):
            config = self.optimizer.get_config()
            return type(self.optimizer).from_config(config)
        return keras.optimizers.get(self.optimizer)


@dataclass(frozen=True, eq=False)
class Comparison:
    """What all runs of a comparison have in common.

    Attributes:
        start: The student as it starts; no run changes it.
        train: Training split, `x` packed with the teacher's outputs.
        validation: The same for validation; it is logged.
        recipe: How they train.
    """

    start: keras.Model
    train: Split
    validation: Split
    recipe: Recipe


Callbacks = Sequence[keras.callbacks.Callback]


def cosine_adamw(
    learning_rate: float, *, epochs: int, batch_size: int, examples: int
) -> keras.optimizers.Optimizer:
    """Returns AdamW without weight decay, on a cosine to 0 over a run.

    Args:
        learning_rate: At the start.
        epochs: Length of the run.
        batch_size: Examples a step.
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
) -> keras.Model:
    """Trains a model on the labels alone, in place, and returns it."""
    keras.utils.set_random_seed(recipe.seed)
    _compile(model, model, recipe)
    _fit(model, train, validation, recipe, callbacks)
    return model


def train_distilled(
    student: keras.Model, common: Comparison, callbacks: Callbacks = ()
) -> tuple[keras.Model, dict[str, list[float]]]:
    """Trains a student under the teacher.

    Args:
        student: Trained in place, or replaced by `DynamicPruning`.
        common: Data and rules.
        callbacks: Keras callbacks.

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
        distiller, common.train, common.validation, recipe, callbacks
    )
    return finalize(distiller.student), history.history


def train_control(
    name: str,
    common: Comparison,
    pruned: keras.Model,
    layers: Sequence[str],
    callbacks: Callbacks = (),
) -> keras.Model:
    """Trains one control of a pruned student.

    Args:
        name: A key of `CONTROLS`.
        common: Data and rules, those of the pruned student.
        pruned: The pruned student, plain.
        layers: The layers that were pruned.
        callbacks: Keras callbacks.

    Returns:
        The control, plain.
    """
    if name == "kd":
        return train_distilled(finalize(common.start), common, callbacks)[0]
    if name == "same_size":
        student = reinitialized(pruned, common.recipe.seed)
        return train_distilled(student, common, callbacks)[0]
    if name == "same_size_labels":
        student = reinitialized(pruned, common.recipe.seed)
        return train_supervised(
            student,
            _without_teacher(common.train),
            _without_teacher(common.validation),
            common.recipe,
            callbacks,
        )
    removal = RemovalHalfWay(name, pruned, layers, common)
    student = prepare(finalize(common.start), l1=0.0, layers=layers)
    return train_distilled(student, common, [removal, *callbacks])[0]


class RemovalHalfWay(keras.callbacks.Callback):
    """Cuts layers once, after half of the epochs, to given widths.

    Args:
        ranking: `"random"`, `"magnitude"` (norm of a unit's own weights; Li
            et al. 2017, arXiv 1608.08710) or `"contribution"`; the lowest go.
        pruned: The model whose widths are wanted.
        layers: The layers to cut.
        common: Epochs, seed and training data.
    """

    def __init__(
        self,
        ranking: str,
        pruned: keras.Model,
        layers: Sequence[str],
        common: Comparison,
    ) -> None:
        super().__init__()
        units = ChannelGraph(pruned).units
        self._widths = {name: len(units[name]) for name in layers}
        self._ranking = ranking
        self._common = common

    def on_epoch_begin(
        self, epoch: int, logs: dict[str, Any] | None = None
    ) -> None:
        """Cuts the student before its second half."""
        if epoch == self._common.recipe.epochs // 2:
            graph = ChannelGraph(self.model.student)
            units = lowest_units(graph, self._scores(graph), self._widths)
            self.model.replace_student(plan_on(graph, units))

    def _scores(self, graph: ChannelGraph) -> dict[int, float]:
        if self._ranking == "contribution":
            inputs, _ = unpacked(self._common.train.x)
            activity = activity_on(graph, sampled(graph, inputs, SAMPLES))
            chosen = {name: activity[name] for name in self._widths}
            return group_scores(graph, chosen, contribution)
        if self._ranking == "magnitude":
            norms = graph.incoming_norms()
            return group_maxima(graph, {n: norms[n] for n in self._widths})
        generator = np.random.default_rng(self._common.recipe.seed)
        return group_maxima(
            graph,
            {n: generator.random(len(graph.units[n])) for n in self._widths},
        )


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


def reinitialized(model: keras.Model, seed: int) -> keras.Model:
    """Returns a copy whose first weights depend on the seed alone."""
    return fresh(lambda: rebuild(model, lambda config: None), seed)


def fresh(make: Callable[[], keras.Model], seed: int) -> keras.Model:
    """Returns a new model whose first weights depend on the seed alone."""
    keras.utils.set_random_seed(seed)
    return make()


def accuracy(model: keras.Model, split: Split) -> float:
    """Returns the share of right answers of a model on a split.

    Args:
        model: Each output (batch, ..., classes).
        split: Plain inputs and class numbers; of several outputs the mean of
            their accuracies is returned.
    """
    outputs = keras.tree.flatten(model.predict(split.x, verbose=0))
    labels = keras.tree.flatten(split.y)
    return float(
        np.mean(
            [
                (output.argmax(axis=-1) == label).mean()
                for output, label in zip(outputs, labels, strict=True)
            ]
        )
    )


def _without_teacher(split: Split) -> Split:
    return replace(split, x=unpacked(split.x)[0])


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
) -> Any:
    return model.fit(
        train.x,
        train.y,
        sample_weight=train.sample_weight,
        validation_data=validation.as_tuple(),
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        callbacks=list(callbacks),
        verbose=0,
    )
