"""How every student of a comparison is trained, in Keras: all alike."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from comparison.data import Data
from comparison.students import Student
from comparison.views import Views, as_floats, batches_of, order
from keras_kddp import Distiller, finalize, profile
from keras_kddp.data.packing import TeacherOutput, packed
from keras_kddp.surgery.rebuild import rebuild

Batch = tuple[np.ndarray, np.ndarray, np.ndarray | None]
Callbacks = Sequence[keras.callbacks.Callback]

STEPS_PER_EXECUTION = 16
"""Keras starts so many steps at once: the same numbers, sooner."""


@dataclass(frozen=True)
class Recipe:
    """How the label-trained unpruned student learns best, on validation.

    Attributes:
        learning_rate: At the start of a cosine to 0.
        weight_decay: Of AdamW.
        augmentation: A key of `comparison.views.KINDS`.
    """

    learning_rate: float
    weight_decay: float
    augmentation: str


@dataclass(frozen=True, eq=False)
class Setting:
    """What a run is given.

    Attributes:
        student: Which one.
        data: Its examples.
        views: Of its training examples.
        outputs: The teacher's logits for them, (views, rows, classes) float16;
            None for a run on labels alone.
        recipe: How it learns.
        epochs: How long.
        seed: Of start weights and orders.
    """

    student: Student
    data: Data
    views: Views
    outputs: np.ndarray | None
    recipe: Recipe
    epochs: int
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch, all of `batch_size` examples."""
        return len(self.data.train.y) // self.student.batch_size

    @property
    def steps(self) -> int:
        """Steps of the run."""
        return self.epochs * self.steps_per_epoch

    def start(self) -> keras.Model:
        """Returns the unpruned student as all runs of this seed start."""
        keras.utils.set_random_seed(self.seed)
        return in_precision(self.student.make(), self.student.precision)

    def batch(self, rows: np.ndarray, epoch: int) -> Batch:
        """Returns inputs, labels and teacher logits of a step, as it is seen.

        Args:
            rows: Which examples, (batch,).
            epoch: From 0 on.
        """
        view = epoch % self.views.count
        x = as_floats(self.views[view][rows])
        logits = None
        if self.outputs is not None:
            logits = self.outputs[view, rows].astype(np.float32)
        return x, self.data.train.y[rows], logits

    def batches(self, epoch: int) -> Iterator[Batch]:
        """Yields the steps of an epoch, as `batch` gives them."""
        rows = len(self.data.train.y)
        size = self.student.batch_size
        for those in batches_of(rows, size, self.seed, epoch):
            yield self.batch(those, epoch)

    def sample(self, rows: int = 4096) -> np.ndarray:
        """Returns evenly spaced training examples as they are, float32."""
        x = self.data.train.x
        chosen = np.linspace(0, len(x) - 1, min(rows, len(x))).astype(int)
        return as_floats(x[chosen])


class Feed(keras.utils.PyDataset):
    """The steps of a run for `fit`, in the order of their epochs.

    Args:
        setting: Of the run.
    """

    def __init__(self, setting: Setting) -> None:
        super().__init__()
        self._setting = setting
        self._epoch = -1
        self._order = np.zeros(0, int)

    def __len__(self) -> int:
        return self._setting.steps_per_epoch

    def __getitem__(self, index: int) -> tuple[Any, np.ndarray]:
        size = self._setting.student.batch_size
        rows = self._order[index * size : (index + 1) * size]
        x, y, logits = self._setting.batch(rows, self._epoch)
        return with_logits(x, logits), y

    def on_epoch_begin(self) -> None:
        """Goes on to the next epoch: Keras calls it once before each."""
        self._epoch += 1
        rows = len(self._setting.data.train.y)
        self._order = order(rows, self._setting.seed, self._epoch)


def with_logits(x: np.ndarray, logits: np.ndarray | None) -> Any:
    """Returns inputs as a Distiller takes them, with the teacher's logits.

    Args:
        x: Of a step.
        logits: Of the step, or None.
    """
    if logits is None:
        return x
    return packed(x, [TeacherOutput(logits, False)])


class Cost(keras.callbacks.Callback):
    """Counts the multiply-accumulates of the student's forward passes.

    Attributes:
        macs: Over all steps and examples, as `keras_kddp.profile` counts.
    """

    def __init__(self, examples_per_epoch: int) -> None:
        super().__init__()
        self.macs = 0
        self._examples = examples_per_epoch

    def on_epoch_end(
        self, epoch: int, logs: dict[str, Any] | None = None
    ) -> None:
        """Adds the epoch of the student that it was."""
        student = getattr(self.model, "student", self.model)
        self.macs += self._examples * profile(student).macs


def train(
    model: keras.Model,
    setting: Setting,
    callbacks: Callbacks = (),
    *,
    temperature: float | None = None,
    student_loss_weight: float = 1.0,
) -> tuple[keras.Model, int]:
    """Trains a student, and returns it plain with what that cost.

    Args:
        model: Trained in place, or replaced by a callback.
        setting: Of the run.
        callbacks: Keras callbacks.
        temperature: Of the soft targets; None: labels alone.
        student_loss_weight: Share of the labels.

    Returns:
        The student, and the multiply-accumulates of its forward passes.
    """
    distiller = Distiller(
        None,
        model,
        student_loss_weight=1.0 if temperature is None else student_loss_weight,
        temperature=temperature or 1.0,
    )
    schedule = keras.optimizers.schedules.CosineDecay(
        setting.recipe.learning_rate, setting.steps
    )
    distiller.compile(
        keras.optimizers.AdamW(
            schedule, weight_decay=setting.recipe.weight_decay
        ),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        steps_per_execution=STEPS_PER_EXECUTION,
    )
    cost = Cost(setting.steps_per_epoch * setting.student.batch_size)
    distiller.fit(
        Feed(setting),
        epochs=setting.epochs,
        callbacks=[*callbacks, cost],
        verbose=0,
    )
    return finalize(distiller.student), cost.macs


def in_precision(model: keras.Model, precision: str) -> keras.Model:
    """Returns a copy that computes in another precision; weights are float32.

    The last layer, whose logits are compared, computes in float32.

    Args:
        model: Plain.
        precision: `"float32"` or `"mixed_bfloat16"`.
    """
    last = model.layers[-1].name

    def edit(config: dict[str, Any]) -> None:
        for layer in config["layers"]:
            is_last = layer["config"].get("name") == last
            if (
                "dtype" in layer["config"]
                and "batch_shape" not in layer["config"]
            ):
                layer["config"]["dtype"] = "float32" if is_last else precision

    copy = rebuild(model, edit)
    copy.set_weights(model.get_weights())
    return copy


def narrowed(model: keras.Model, widths: dict[str, int]) -> keras.Model:
    """Returns the same layers with other widths and fresh weights.

    Args:
        model: Unpruned.
        widths: Layer name -> units, of layers that are not coupled to others
            of another width.
    """

    def edit(config: dict[str, Any]) -> None:
        for layer in config["layers"]:
            entry = layer["config"]
            if entry.get("name") in widths:
                key = "units" if "units" in entry else "filters"
                entry[key] = widths[entry["name"]]

    return rebuild(model, edit)


def predictions(model: keras.Model, x: np.ndarray) -> np.ndarray:
    """Returns the class that a student takes each example for, (rows,).

    Args:
        model: Plain; it is asked in float32, whatever it was trained in.
        x: As the data have them.
    """
    plain = in_precision(model, "float32")
    parts = [
        plain(as_floats(x[start : start + 1000]), training=False)
        for start in range(0, len(x), 1000)
    ]
    logits = [keras.ops.convert_to_numpy(part) for part in parts]
    return np.concatenate(logits).argmax(axis=-1)
