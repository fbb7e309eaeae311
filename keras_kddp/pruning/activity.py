"""How active the units of a model are over data."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_kddp.arguments import require_count
from keras_kddp.data.batches import (
    Batches,
    are_arrays,
    batches_of,
    evenly_spaced,
    finite_batches,
    row_count,
)
from keras_kddp.pruning.padding import Padding
from keras_kddp.surgery.graph import ChannelGraph
from keras_kddp.surgery.observer import Observer


@dataclass(frozen=True, eq=False)
class UnitActivity:
    """Statistics of the activations of a layer's units.

    Every array is (units,) float64; the statistics run over examples and
    positions at the layer's observation point. Steps that a Keras mask hides
    from all that follows are left out: padding changes nothing there. Where
    something reads them all the same (Flatten, a convolution), or may do so
    (MultiHeadAttention, TimeDistributed), all steps count.

    Attributes:
        minimum: Smallest activation.
        maximum: Largest activation.
        mean: Mean activation.
        mean_abs: Mean absolute activation.
        variance: Population variance.
        zero_fraction: Share of activations that are exactly 0 (APoZ; Hu et
            al. 2016, arXiv 1607.03250).
        count: Number of activations seen per unit.
        examples: Number of examples seen, those of padding alone left out;
            fewer than `count` where a unit has several positions. 0: not
            known.
    """

    minimum: np.ndarray
    maximum: np.ndarray
    mean: np.ndarray
    mean_abs: np.ndarray
    variance: np.ndarray
    zero_fraction: np.ndarray
    count: int
    examples: int = 0

    @property
    def live(self) -> np.ndarray:
        """(units,) bool: the unit fired at least once."""
        return (self.minimum != 0) | (self.maximum != 0)


class _Sums:
    """Running sums over the activations of one layer."""

    def __init__(self, units: int) -> None:
        self.count = 0
        self.examples = 0
        self.minimum = np.full(units, np.inf)
        self.maximum = np.full(units, -np.inf)
        self.total = np.zeros(units)
        self.total_abs = np.zeros(units)
        self.total_square = np.zeros(units)
        self.zeros = np.zeros(units)

    def add(
        self, activations: np.ndarray, examples: int, seen: np.ndarray | None
    ) -> None:
        """Adds a batch.

        Args:
            activations: (batch, ..., units).
            examples: Number of examples in the batch.
            seen: Which steps count, (batch, steps) bool; None for all.
        """
        if seen is not None:
            activations = activations[seen]
            examples = int(seen.reshape(len(seen), -1).any(axis=1).sum())
        flat = activations.reshape(-1, activations.shape[-1])
        if not len(flat):
            return
        wide = flat.astype("float64", copy=False)
        self.count += len(flat)
        self.examples += examples
        self.minimum = np.minimum(self.minimum, wide.min(axis=0))
        self.maximum = np.maximum(self.maximum, wide.max(axis=0))
        self.total += wide.sum(axis=0)
        self.total_abs += np.abs(wide).sum(axis=0)
        self.total_square += np.einsum("ij,ij->j", wide, wide)
        self.zeros += (flat == 0).sum(axis=0)

    def result(self) -> UnitActivity:
        mean = self.total / self.count
        square = self.total_square / self.count - mean**2
        return UnitActivity(
            minimum=self.minimum,
            maximum=self.maximum,
            mean=mean,
            mean_abs=self.total_abs / self.count,
            variance=np.maximum(square, 0.0),
            zero_fraction=self.zeros / self.count,
            count=self.count,
            examples=self.examples,
        )


def collect_activity(
    model: keras.Model, data: Batches, *, batch_size: int = 256
) -> dict[str, UnitActivity]:
    """Returns the activity of every removable layer's units over data.

    The model runs in inference mode at its present weights; it is not changed.

    Args:
        model: A built Sequential or Functional model.
        data: Inputs as arrays (a dict or list of them for several inputs), or
            a finite iterable of batches `x`, `(x, y)` or `(x, y, w)`, such as
            a `tf.data.Dataset` or `keras.utils.PyDataset`.
        batch_size: Rows per step, for arrays.

    Returns:
        Layer name -> its units' statistics.

    Raises:
        ValueError: If there is no data, or nothing but padding, inputs differ
            in length, or the model has no graph of layers.
    """
    require_count("batch_size", batch_size, smallest=1)
    graph = ChannelGraph(model)
    if not are_arrays(data):
        data = finite_batches("data", data)
    return activity_on(graph, data, batch_size=int(batch_size))


def activity_on(
    graph: ChannelGraph,
    data: Batches,
    *,
    layers: Iterable[str] | None = None,
    batch_size: int = 256,
) -> dict[str, UnitActivity]:
    """Returns `collect_activity` on a graph that was read already.

    Args:
        graph: The channels of the model.
        data: See `collect_activity`.
        layers: The removable layers to observe; None: all.
        batch_size: Rows per step, for arrays.
    """
    names = graph.removable_layers() if layers is None else layers
    points = {name: graph.observation_points(name) for name in names}
    sums = _sums_over(
        graph, [x for found in points.values() for x in found], data, batch_size
    )
    statistics = {
        key: total.result() for key, total in sums.items() if total.count
    }
    for name, found in points.items():
        if not any(id(x) in statistics for x in found):
            raise ValueError(
                "`data` must hold at least one step that is no padding. "
                f"Received masks that leave nothing of layer '{name}'. Check "
                "`mask_value` and `mask_zero`, or pass other data."
            )
    return {
        name: _merged([statistics[id(x)] for x in found if id(x) in statistics])
        for name, found in points.items()
    }


def _sums_over(
    graph: ChannelGraph, tensors: list[Any], data: Batches, batch_size: int
) -> dict[int, _Sums]:
    """Returns `id(symbolic tensor)` -> sums over its activations."""
    points = {id(x): x for x in tensors}
    if not points:
        return {}
    axes = {key: graph.channels[key].axis or 0 for key in points}
    sums = {key: _Sums(x.shape[axes[key]]) for key, x in points.items()}
    padding = Padding(graph, points.values())
    observed = list({id(x): x for x in [*tensors, *padding.tensors]}.values())
    observer = Observer(graph, observed)
    is_empty = True
    for batch in batches_of(data, batch_size):
        is_empty = False
        examples = len(keras.tree.flatten(batch)[0])
        values = dict(zip(map(id, observed), observer(batch), strict=True))
        for key, tensor in points.items():
            array = keras.ops.convert_to_numpy(values[key])
            array = np.moveaxis(array, axes[key], -1)
            sums[key].add(array, examples, padding.seen(tensor, values))
    if is_empty:
        raise ValueError(
            "`data` must hold at least one example. Received none. Pass "
            "arrays, or an iterable that can be run through again."
        )
    return sums


def sampled(graph: ChannelGraph, data: Batches, samples: int) -> Batches:
    """Returns a part of data that can be observed again and again.

    Args:
        graph: The channels of the model that will be observed.
        data: Arrays or an iterable, as for `collect_activity`.
        samples: At most so many evenly spaced rows of arrays; the first
            batches of an iterable that have so many.

    Raises:
        ValueError: If the data cannot be read by the model, or only once.
    """
    if are_arrays(data):
        chosen = evenly_spaced(row_count(data), samples)
        part = keras.tree.map_structure(
            lambda leaf: np.asarray(leaf)[chosen], data
        )
    else:
        _require_repeatable(data)
        part = _FirstRows(data, samples)
    try:
        points = [
            x
            for name in graph.removable_layers()
            for x in graph.observation_points(name)
        ]
        _sums_over(graph, points, next(batches_of(part, 1), ()), 1)
    except (TypeError, ValueError) as error:
        shapes = [tuple(symbol.shape) for symbol in graph.model.inputs]
        raise ValueError(
            f"`data` must hold inputs of the student, {shapes}, and no labels "
            f"beside arrays. Received {type(data).__name__}, for which: "
            f"{error}"
        ) from error
    return part


def _require_repeatable(data: Batches) -> None:
    if not isinstance(data, Iterable) or isinstance(data, Iterator):
        raise ValueError(
            "`data` must be arrays, or an iterable of batches that can be run "
            f"through again. Received: {type(data).__name__}. Pass some "
            "inputs, data=x[:4096], or a tf.data.Dataset."
        )


class _FirstRows:
    """An iterable's first batches, up to a number of rows, anew each time."""

    def __init__(self, data: Batches, rows: int) -> None:
        self._data = data
        self._rows = rows

    def __iter__(self) -> Iterator[Any]:
        seen = 0
        for batch in finite_batches("data", self._data):
            yield batch
            x, _, _ = keras.utils.unpack_x_y_sample_weight(batch)
            seen += keras.tree.flatten(x)[0].shape[0]
            if seen >= self._rows:
                return


def _merged(parts: list[UnitActivity]) -> UnitActivity:
    """Returns the statistics of a shared layer over all its calls."""
    if len(parts) == 1:
        return parts[0]
    count = sum(part.count for part in parts)

    def average(values: list[np.ndarray]) -> np.ndarray:
        shares = [part.count / count for part in parts]
        return np.average(values, axis=0, weights=shares)

    mean = average([part.mean for part in parts])
    square = average([part.variance + part.mean**2 for part in parts])
    return UnitActivity(
        minimum=np.min([part.minimum for part in parts], axis=0),
        maximum=np.max([part.maximum for part in parts], axis=0),
        mean=mean,
        mean_abs=average([part.mean_abs for part in parts]),
        variance=np.maximum(square - mean**2, 0.0),
        zero_fraction=average([part.zero_fraction for part in parts]),
        count=count,
        examples=max(part.examples for part in parts),
    )
