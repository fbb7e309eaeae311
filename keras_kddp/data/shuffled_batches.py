"""Batches of arrays, in an order that follows from seed and epoch."""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_kddp.data.packing import plain_inputs
from keras_kddp.model_io import Array, Arrays, Tensor


class ShuffledBatches(keras.utils.PyDataset):
    """Batches of arrays, in an order that follows from seed and epoch alone.

    After `keras.utils.set_random_seed`, Keras 3.15 on TensorFlow hands arrays
    to every epoch in one and the same shuffled order.

    Args:
        arrays: `(x,)`, `(x, y)` or `(x, y, sample_weight)`, structures of
            NumPy arrays with one row per example.
        batch_size: Rows per step; the last batch of a pass may have fewer.
        seed: An integer >= 0.
        epoch: The first epoch.
        steps: Batches per epoch; None: one pass over the rows. More than a
            pass goes on with another order.
        within_batches: Only mix the rows of each batch, as Keras does for
            `shuffle="batch"`.

    Attributes:
        seed: The seed.
    """

    def __init__(
        self,
        arrays: tuple[Arrays, ...],
        batch_size: int,
        *,
        seed: int,
        epoch: int = 0,
        steps: int | None = None,
        within_batches: bool = False,
    ) -> None:
        """Puts the rows in the order of the first epoch."""
        super().__init__()
        self._arrays = arrays
        self._rows = len(keras.tree.flatten(arrays)[0])
        self._batch_size = batch_size
        self.seed = seed
        self._in_a_pass = -(-self._rows // batch_size)
        self._steps = steps or self._in_a_pass
        self._within_batches = within_batches
        self.begin(epoch)

    @property
    def settings(self) -> dict[str, int]:
        """What the order depends on beside the seed, and the next epoch."""
        return {
            "rows": self._rows,
            "batch_size": self._batch_size,
            "steps": self._steps,
            "within_batches": self._within_batches,
            "initial_epoch": self._epoch,
        }

    @property
    def data(self) -> dict[str, Arrays]:
        """The arrays by their role, without packed teacher outputs.

        Those may differ in their last bits where they are computed again.
        """
        roles = ("x", "y", "sample_weight")
        found = dict(zip(roles, self._arrays, strict=False))
        return {**found, "x": plain_inputs(found["x"])}

    def begin(self, epoch: int) -> None:
        """Puts the rows in the order of an epoch, from 0."""
        self._epoch = epoch
        self._orders: dict[int, Array] = {}  # of the last pass read

    def __len__(self) -> int:
        """Returns the number of batches in an epoch."""
        return self._steps

    def __getitem__(self, index: int) -> tuple[Arrays, ...]:
        """Returns a batch of the present epoch, by its place in it."""
        passed, place = divmod(index, self._in_a_pass)
        start = place * self._batch_size
        rows = self._order(passed)[start : start + self._batch_size]
        return keras.tree.map_structure(
            lambda leaf: _take(leaf, rows), self._arrays
        )

    def as_dataset(self) -> Any:
        """Returns the same batches as a `tf.data.Dataset`, which is faster.

        The order is that of the epoch in which an iterator begins.
        """
        import tensorflow as tf

        def orders() -> Iterator[Array]:
            for passed in range(-(-self._steps // self._in_a_pass)):
                yield self._order(passed)

        with tf.device("CPU:0"):
            tensors = keras.tree.map_structure(tf.constant, self._arrays)
        options = tf.data.Options()
        options.experimental_distribute.auto_shard_policy = (
            tf.data.experimental.AutoShardPolicy.DATA
        )
        return (
            tf.data.Dataset.from_generator(
                orders,
                output_signature=tf.TensorSpec((self._rows,), tf.int64),
            )
            .flat_map(
                lambda order: tf.data.Dataset.from_tensor_slices(order).batch(
                    self._batch_size
                )
            )
            .take(self._steps)
            .map(
                lambda rows: keras.tree.map_structure(
                    lambda leaf: tf.gather(leaf, rows), tensors
                ),
                num_parallel_calls=tf.data.AUTOTUNE,
            )
            .apply(tf.data.experimental.assert_cardinality(self._steps))
            .with_options(options)
            .prefetch(tf.data.AUTOTUNE)
        )

    def _order(self, passed: int) -> Array:
        """Returns the order of a pass over the rows, (rows,) integers."""
        if passed not in self._orders:
            draw = np.random.default_rng([self.seed, self._epoch, passed])
            order = np.arange(self._rows)
            size = self._batch_size if self._within_batches else self._rows
            for start in range(0, self._rows, size):
                draw.shuffle(order[start : start + size])
            self._orders = {passed: order}
        return self._orders[passed]


class EpochOrder(keras.callbacks.Callback):
    """Puts batches in the order of each epoch as it begins.

    Args:
        batches: What `fit` reads; let go when the run ends.
    """

    def __init__(self, batches: ShuffledBatches) -> None:
        """Keeps the batches."""
        super().__init__()
        self._batches: ShuffledBatches | None = batches

    def checkpoint_settings(self) -> Any:
        """Returns the data, and what their order depends on beside the seed."""
        if self._batches is None:
            return None
        return {**self._batches.settings, "data": self._batches.data}

    def checkpoint_state(self) -> dict[str, Any]:
        """Returns the seed, which not every run is given."""
        return {"seed": self._batches and self._batches.seed}

    def restore_checkpoint_state(self, state: dict[str, Any]) -> None:
        """Goes on with the seed of another run."""
        if self._batches is not None:
            self._batches.seed = state["seed"]

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Orders the rows anew."""
        if self._batches is not None:
            self._batches.begin(epoch)

    def on_train_end(self, logs: Any = None) -> None:
        """Lets the arrays go."""
        self._batches = None


def _take(leaf: Array, rows: Array) -> Tensor:
    """Returns rows of an array; text as the backend reads it."""
    taken = leaf[rows]
    if leaf.dtype == object:
        return keras.ops.convert_to_tensor(taken, dtype="string")
    return taken
