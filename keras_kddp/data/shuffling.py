"""Arrays for `fit`, in a new order in each epoch."""

import math
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

import keras
import numpy as np

from keras_kddp import _compat
from keras_kddp.model_io import Array, Arrays, Tensor

DEFAULT_BATCH_SIZE = 32  # that of `keras.Model.fit`


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
    def sizes(self) -> list[int]:
        """The numbers of rows, of rows in a batch and of batches."""
        return [self._rows, self._batch_size, self._steps]

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
        """Returns how many rows, batches and rows of a batch there are."""
        return self._batches and self._batches.sizes

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


def shuffle_each_epoch(given: MutableMapping[str, Any]) -> None:
    """Has `keras.Model.fit` shuffle arrays anew in each epoch.

    What is no array, need not be shuffled, or is not as `fit` takes it is left
    as it is: Keras then reads it, or says what is wrong. So are sparse and
    ragged tensors.

    Args:
        given: The arguments of `keras.Model.fit`, by name; changed in place.
    """
    arrays = _training_arrays(given)
    if arrays is None:
        return
    train, validation = _split(arrays, given)
    rows = len(keras.tree.flatten(train)[0])
    steps = given.get("steps_per_epoch")
    batch_size = given.get("batch_size") or (
        math.ceil(rows / steps) if steps else DEFAULT_BATCH_SIZE
    )
    seed = _compat.random_seed()
    batches = ShuffledBatches(
        train,
        batch_size,
        seed=np.random.randint(2**31) if seed is None else seed,
        epoch=given.get("initial_epoch", 0),
        steps=steps,
        within_batches=given.get("shuffle") == "batch",
    )
    if validation is not None:
        given["validation_data"] = validation
    if given.get("validation_batch_size") is None:
        given["validation_batch_size"] = given.get("batch_size")
    for name in ("y", "sample_weight", "batch_size", "steps_per_epoch"):
        given[name] = None
    is_fast = keras.backend.backend() == "tensorflow"
    is_weighted = given.get("class_weight") is not None
    given["x"] = (
        batches.as_dataset() if is_fast and not is_weighted else batches
    )
    given["shuffle"] = False
    given["validation_split"] = 0.0
    given["callbacks"] = _with(given.get("callbacks"), EpochOrder(batches))


def _training_arrays(given: Mapping[str, Any]) -> tuple[Arrays, ...] | None:
    """Returns the arrays to shuffle; None where Keras is to read them."""
    x, y = given.get("x"), given.get("y")
    weight = given.get("sample_weight")
    if not given.get("shuffle", True) or not _counts_are_valid(given):
        return None
    is_nested = keras.tree.is_nested(y)
    if given.get("class_weight") is not None and (
        weight is not None or is_nested
    ):
        return None
    parts = [part for part in (x, y, weight) if part is not None]
    if not parts or x is None or (weight is not None and y is None):
        return None
    if weight is not None and is_nested and not keras.tree.is_nested(weight):
        if math.prod(np.shape(weight)[1:]) != 1:
            return None
        parts[-1] = keras.tree.map_structure(lambda _: weight, y)
    parts = keras.tree.map_structure(_as_numpy, parts)
    leaves = keras.tree.flatten(parts)
    if any(leaf is None for leaf in leaves):
        return None
    rows = {len(leaf) for leaf in leaves}
    if len(rows) != 1 or not _rows_to_train(rows.pop(), given):
        return None
    return tuple(map(keras.tree.lists_to_tuples, parts))


def _counts_are_valid(given: Mapping[str, Any]) -> bool:
    """Says whether sizes are such as Keras takes."""
    counts = (given.get("batch_size"), given.get("steps_per_epoch"))
    return all(
        count is None or (isinstance(count, (int, np.integer)) and count > 0)
        for count in counts
    )


def _as_numpy(leaf: Any) -> Array | None:
    """Returns an array of numbers or text as Keras would read it.

    Floats come in the float of Keras; None for what Keras must read itself.
    """
    if not hasattr(leaf, "__array__"):
        return None
    is_foreign = isinstance(leaf, np.ndarray) or hasattr(leaf, "iloc")
    value = np.asarray(leaf) if is_foreign else keras.ops.convert_to_numpy(leaf)
    if not value.ndim:
        return None
    if hasattr(leaf, "iloc") and value.ndim == 1:  # a Series is a column
        value = value[:, None]
    if value.dtype == object:
        is_text = all(isinstance(x, (str, bytes)) for x in value.flat)
        is_read = is_text and keras.backend.backend() == "tensorflow"
        return value if is_read else None
    if value.dtype.kind == "f":
        return value.astype(keras.config.floatx(), copy=False)
    return value if value.dtype.kind in "biu" else None


def _rows_to_train(rows: int, given: Mapping[str, Any]) -> int:
    """Returns how many rows `validation_split` leaves; 0 if it is refused."""
    share = given.get("validation_split") or 0.0
    if not share or given.get("validation_data") is not None:
        return rows
    kept = math.floor(rows * (1 - share))
    return kept if 0 < kept < rows else 0


def _split(
    arrays: tuple[Arrays, ...], given: Mapping[str, Any]
) -> tuple[tuple[Arrays, ...], tuple[Arrays, ...] | None]:
    """Returns the rows to train on, and those that are set aside, or None."""
    rows = len(keras.tree.flatten(arrays)[0])
    kept = _rows_to_train(rows, given)
    if kept == rows:
        return arrays, None
    return (
        keras.tree.map_structure(lambda leaf: leaf[:kept], arrays),
        keras.tree.map_structure(lambda leaf: leaf[kept:], arrays),
    )


def _with(callbacks: Any, callback: keras.callbacks.Callback) -> Any:
    """Returns callbacks and one more, in the form that they were given in."""
    if isinstance(callbacks, keras.callbacks.CallbackList):
        others = callbacks.callbacks
        callbacks.callbacks = [
            *(x for x in others if not isinstance(x, EpochOrder)),
            callback,
        ]
        return callbacks
    return [callback, *keras.tree.flatten(callbacks or [])]


def _take(leaf: Array, rows: Array) -> Tensor:
    """Returns rows of an array; text as the backend reads it."""
    taken = leaf[rows]
    if leaf.dtype == object:
        return keras.ops.convert_to_tensor(taken, dtype="string")
    return taken
