"""Hypothesis strategies: random small models and removals that fit them.

Hypothesis chooses the number of steps and a seed; the graph follows from both.
Chosen draw by draw, most examples would be variations of the first ones.

A graph starts at numbers as they are, or at what prepares data: adapted
layers, lookups, embeddings whose masks reach recurrent and pooling layers.
"""

import functools
import math
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from helpers import randomize
from hypothesis import strategies as st
from keras.src.backend import get_keras_mask

from keras_kddp.surgery import unit_groups

Draw = Callable[[st.SearchStrategy], Any]
Shape = tuple[int | None, ...]

DTYPE = "float64"
# Zeros, because an initializer that draws would disturb the random state that
# Hypothesis watches; `randomize` fills the weights afterwards.
WEIGHTS = {"kernel_initializer": "zeros", "dtype": DTYPE}
RECURRENT = {"recurrent_initializer": "zeros", "seed": 7, **WEIGHTS}
STEPS = 4  # of a sequence of tokens
TOKENS = 6  # as `helpers.random_inputs` draws them
MAXIMUM_SIZE = 6  # of an image, so that padding cannot run away

ACTIVATIONS = ["relu", "sigmoid", "tanh", "elu", "leaky_relu", "linear"]
TAKE_MASKS = (
    keras.layers.BatchNormalization,
    keras.layers.GlobalAveragePooling1D,
    keras.layers.RNN,
    keras.layers.Bidirectional,
)
RAW_OPERATIONS = [
    keras.ops.relu,
    keras.ops.sigmoid,
    keras.ops.tanh,
    keras.ops.abs,
    keras.ops.negative,
    keras.ops.square,
    lambda x: x + 0.5,
    lambda x: x * -1.5,
    lambda x: 1.0 - x,
    lambda x: x / 2,
    lambda x: keras.ops.clip(x, -0.5, 1.0),
]
JOINS = [
    keras.layers.Add,
    keras.layers.Subtract,
    keras.layers.Multiply,
    keras.layers.Average,
    keras.layers.Maximum,
    keras.layers.Minimum,
]
RAW_JOINS = [
    lambda x: x[0] + x[1],
    lambda x: x[0] - x[1],
    lambda x: x[0] * x[1],
    lambda x: keras.ops.maximum(x[0], x[1]),
]


class Case(NamedTuple):
    """A model with random weights, and units that may leave it."""

    model: keras.Model
    units: dict[str, list[int]]
    seed: int


class Entry(NamedTuple):
    """How a model takes its data.

    Attributes:
        shape: Shape of the input, batch axis first.
        dtype: Its dtype.
        name: Its name.
        layers: What prepares the data.
    """

    shape: Shape
    dtype: str
    name: str
    layers: list[keras.Layer]

    def input(self) -> Any:
        return keras.Input(self.shape[1:], dtype=self.dtype, name=self.name)


@st.composite
def cases(draw: Draw, *, dropout: bool = True, prepared: float = 0.3) -> Case:
    """Draws a model, units to remove (none at times) and a seed for data.

    Args:
        draw: Given by Hypothesis.
        dropout: Whether layers may be random while training.
        prepared: How likely an input is prepared: adapted, looked up, masked.
    """
    seed = draw(st.integers(0, 2**16))
    model = draw(models(dropout=dropout, prepared=prepared))
    adapted = {
        layer: layer.get_weights()
        for layer in model.layers
        if isinstance(layer, keras.layers.Normalization)
    }
    randomize(model, seed)
    for layer, weights in adapted.items():
        layer.set_weights(weights)
    return Case(model, draw(removals(model)), seed)


@st.composite
def models(
    draw: Draw, *, dropout: bool = True, prepared: float = 0.3
) -> keras.Model:
    """Draws a built float64 model; every third one is Sequential."""
    chance = draw(st.randoms(use_true_random=True))
    steps = draw(st.integers(2, 8))
    entry = random_entry(chance, "x", prepared)
    if chance.random() < 1 / 3:
        return sequential_model(chance, steps, entry, dropout=dropout)
    entries = [entry]
    if chance.random() < prepared:
        entries.append(random_entry(chance, "z", prepared))
    return functional_model(chance, steps, entries, dropout=dropout)


@st.composite
def removals(draw: Draw, model: keras.Model) -> dict[str, list[int]]:
    """Draws whole removable groups; one unit stays in each layer."""
    groups = unit_groups(model)
    left = Counter(name for group in groups for name, _ in group.members)
    removable = [group for group in groups if not group.reason]
    choices = st.lists(
        st.booleans(), min_size=len(removable), max_size=len(removable)
    )
    units: dict[str, list[int]] = {}
    for group, is_chosen in zip(removable, draw(choices), strict=True):
        taken = Counter(name for name, _ in group.members)
        if is_chosen and all(left[name] > taken[name] for name in taken):
            left -= taken
            for name, unit in group.members:
                units.setdefault(name, []).append(unit)
    return units


@st.composite
def held_constants(
    draw: Draw, model: keras.Model, units: Mapping[str, Sequence[int]]
) -> dict[str, dict[int, float]]:
    """Draws a constant a group; some of its units are left at zero."""
    constants: dict[str, dict[int, float]] = {}
    for group in unit_groups(model):
        if group.members[0][1] not in units.get(group.members[0][0], ()):
            continue
        value = draw(st.sampled_from([-1.5, 0.0, 0.25, 2.0]))
        for name, unit in group.members:
            if draw(st.integers(0, 2)):
                constants.setdefault(name, {})[unit] = value
    return constants


def sequential_model(
    chance: random.Random, steps: int, entry: Entry, *, dropout: bool = True
) -> keras.Model:
    """Returns a random Sequential model that ends in a Dense layer."""
    layers: list[Any] = [entry.input()]
    shape = entry.shape
    for layer in entry.layers:
        shape = layer.compute_output_shape(shape)
        layers.append(layer)
    masked = any(layer.supports_masking for layer in entry.layers)
    for index in range(steps):
        layer = random_layer(
            chance, shape, f"layer{index}", dropout=dropout, masked=masked
        )
        masked = masked and layer.supports_masking
        shape = layer.compute_output_shape(shape)
        layers.append(layer)
    if len(shape) > 2:
        layers.append(random_flattening(chance, "flat", len(shape)))
    layers.append(keras.layers.Dense(2, name="head", **WEIGHTS))
    return keras.Sequential(layers)


def functional_model(
    chance: random.Random,
    steps: int,
    entries: Sequence[Entry],
    *,
    dropout: bool = True,
) -> keras.Model:
    """Returns a random graph with branches, sums and shared layers."""
    graph = _RandomGraph(chance, dropout=dropout)
    inputs = [graph.add_entry(entry) for entry in entries]
    for _ in range(steps):
        graph.add_step()
    return keras.Model(
        inputs if len(inputs) > 1 else inputs[0], graph.outputs()
    )


def random_entry(chance: random.Random, name: str, prepared: float) -> Entry:
    """Returns an input: numbers as they are, or with what prepares them."""
    if chance.random() >= prepared:
        return Entry(random_input_shape(chance), DTYPE, name, [])
    makers = {
        adapted_entry: 2,
        binned_entry: 1,
        padded_entry: 2,
        token_entry: 4,
    }
    maker = chance.choices(list(makers), weights=list(makers.values()))[0]
    return maker(chance, name)


def adapted_entry(chance: random.Random, name: str) -> Entry:
    """Numbers, normalized by what was seen of them or just scaled."""
    shape = random_input_shape(chance)
    options = {"dtype": DTYPE, "name": f"{name}_scaled"}
    if chance.random() < 0.3:
        layer: Any = keras.layers.Rescaling(0.5, offset=1.0, **options)
    else:
        layer = keras.layers.Normalization(**options)
        layer.adapt(_seen_numbers(chance, shape))
    return Entry(shape, DTYPE, name, [layer])


def binned_entry(chance: random.Random, name: str) -> Entry:
    """Numbers, put into bins by what was seen of them."""
    shape = (None, STEPS)
    bins = keras.layers.Discretization(num_bins=TOKENS, name=f"{name}_bins")
    bins.adapt(_seen_numbers(chance, shape))
    encoding: Any = keras.layers.CategoryEncoding(
        TOKENS,
        output_mode=chance.choice(["multi_hot", "count"]),
        dtype=DTYPE,
        name=f"{name}_encoding",
    )
    if chance.random() < 0.4:  # without a mask: all may fall into bin 0
        encoding = random_embedding(chance, f"{name}_embedding", masks=False)
    return Entry(shape, DTYPE, name, [bins, encoding])


def padded_entry(chance: random.Random, name: str) -> Entry:
    """A sequence of vectors, some of them all zeros, which are masked."""
    shape = (None, STEPS, chance.randint(1, 3))
    masking = keras.layers.Masking(dtype=DTYPE, name=f"{name}_masking")
    return Entry(shape, DTYPE, f"padded_{name}", [masking])


def token_entry(chance: random.Random, name: str) -> Entry:
    """A sequence of numbers or words, looked up and embedded."""
    lookups: dict[str, Callable[..., list[keras.Layer]]] = {
        "int32": lambda **options: [],
        "int64": lambda **options: [
            keras.layers.IntegerLookup(
                vocabulary=[2, 3, 5], mask_token=0, **options
            )
        ],
        "int16": lambda **options: [
            keras.layers.Hashing(TOKENS, mask_value=0, **options)
        ],
        "string": lambda **options: [
            keras.layers.StringLookup(
                vocabulary=["a", "b", "c", "d"], mask_token="", **options
            )
        ],
    }
    dtype = chance.choices(list(lookups), weights=[4, 2, 1, 2])[0]
    layers = lookups[dtype](name=f"{name}_lookup")
    masks = chance.random() < 0.8
    layers.append(random_embedding(chance, f"{name}_embedding", masks=masks))
    return Entry((None, STEPS), dtype, name, layers)


def random_embedding(
    chance: random.Random, name: str, *, masks: bool
) -> keras.Layer:
    return keras.layers.Embedding(
        TOKENS,
        chance.randint(2, 4),
        mask_zero=masks,
        embeddings_initializer="zeros",
        dtype=DTYPE,
        name=name,
    )


def _seen_numbers(chance: random.Random, shape: Shape) -> np.ndarray:
    """Returns twenty examples that a layer adapts to."""
    random = np.random.default_rng(chance.randint(0, 2**16))
    return random.normal(0.5, 2.0, size=(20, *shape[1:]))


def random_input_shape(chance: random.Random) -> Shape:
    """Returns the shape of a batch of vectors, sequences or images."""
    positions = chance.choices([0, 1, 2, 3], weights=[3, 2, 4, 1])[0]
    largest = 3 if positions == 3 else 5
    sizes = [chance.randint(3, largest) for _ in range(positions)]
    return (None, *sizes, chance.randint(1, 3 if positions else 4))


class _RandomGraph:
    """A Functional graph that grows by one step at a time."""

    def __init__(self, chance: random.Random, *, dropout: bool) -> None:
        self.chance = chance
        self.dropout = dropout
        self.tensors: list[Any] = []
        self.masks: list[Any] = []
        self.read: set[int] = set()
        self.count = 0

    def add_entry(self, entry: Entry) -> Any:
        """Adds an input and what prepares it; returns the input."""
        tensor = inputs = entry.input()
        if "int" in entry.dtype:
            self.masks.append(keras.ops.not_equal(inputs, 1))
        for layer in entry.layers:
            tensor = layer(tensor)
        # Otherwise most early steps would only touch the input, which must
        # stay.
        first = _channel_mixer(len(tensor.shape), 3, self.name())
        self.tensors.append(tensor)
        self.call(first, tensor)
        return inputs

    def add_step(self) -> None:
        steps = [
            self.add_layer,
            self.add_raw_operation,
            self.add_sum,
            self.add_concatenation,
            self.add_shared_layer,
            self.add_gate,
            self.add_reduction,
            self.add_nested_model,
            self.add_attention,
        ]
        weights = [6, 2, 2, 2, 1, 1, 1, 1, 0.5]
        self.chance.choices(steps, weights=weights)[0]()

    def add_layer(self) -> None:
        source = self.source()
        self.call(self.random_layer(source), source)

    def add_raw_operation(self) -> None:
        self.call(self.chance.choice(RAW_OPERATIONS), self.source())

    def add_sum(self) -> None:
        """Joins two tensors of the same shape; makes one where needed."""
        first = self.source()
        second = self.partner(first)
        join = self.chance.choice(RAW_JOINS)
        if self.chance.random() < 0.5:
            make = self.chance.choice([keras.layers.Add, *JOINS])
            join = make(dtype=DTYPE, name=self.name())
        self.call(join, [first, second])

    def add_gate(self) -> None:
        """Squeezes and excites: each channel times a number of its own."""
        source = self.source()
        rank, units = len(source.shape), source.shape[-1]
        if rank == 2:
            squeezed = source
        else:
            axes = list(range(1, rank - 1))
            squeezed = self.call(
                lambda x: keras.ops.mean(x, axis=axes, keepdims=True), source
            )
        middle = self.call(random_dense(self.chance, self.name()), squeezed)
        gate = keras.layers.Dense(
            units, activation="sigmoid", name=self.name(), **WEIGHTS
        )
        gate = self.call(gate, middle)
        self.call(lambda x: x[0] * x[1], [source, gate])

    def add_reduction(self) -> None:
        """Reduces an axis of positions, or puts a vector at several."""
        source = self.source()
        rank = len(source.shape)
        if rank == 2:
            self.call(
                keras.layers.RepeatVector(2, dtype=DTYPE, name=self.name()),
                source,
            )
            return
        reduce = self.chance.choice(
            [keras.ops.mean, keras.ops.max, keras.ops.sum]
        )
        axis = self.chance.randint(1, rank - 2)
        self.call(lambda x: reduce(x, axis=axis), source)

    def add_nested_model(self) -> None:
        """Calls a model of a few layers, once or twice."""
        source = self.source()
        name, shape = self.name(), source.shape
        inputs = keras.Input(shape[1:], dtype=DTYPE, name=f"{name}_x")
        outputs = inputs
        for index in range(self.chance.randint(1, 3)):
            layer = random_layer(
                self.chance,
                outputs.shape,
                f"inner{index}",
                dropout=self.dropout,
                masked=get_keras_mask(source) is not None,
            )
            outputs = layer(outputs)
        if self.chance.random() < 0.3 and outputs.shape == shape:
            outputs = outputs + inputs
        nested = keras.Model(inputs, outputs, name=name)
        if self.chance.random() < 0.3:
            nested = keras.Sequential([inputs, nested], name=f"{name}_outer")
        self.call(nested, source)
        if self.chance.random() < 0.4:
            self.call(nested, self.partner(source))

    def add_attention(self) -> None:
        """Compares the steps of a sequence with each other."""
        source = self.source()
        if len(source.shape) != 3:
            return
        if self.chance.random() < 0.5:
            attention = keras.layers.Attention(dtype=DTYPE, name=self.name())
            self.call(attention, [source, source])
            return
        attention = keras.layers.MultiHeadAttention(
            1, 2, seed=7, name=self.name(), **WEIGHTS
        )
        self.read.add(id(source))
        self.tensors.append(attention(source, source))

    def add_concatenation(self) -> None:
        """Joins two or three tensors of the same shape, along some axis."""
        first = self.source()
        tensors = [first, self.partner(first)]
        if self.chance.random() < 0.3:
            tensors.append(first)
        last = len(first.shape) - 1
        axis = self.chance.choice([-1, last, -1, 1])
        if axis == 1 and first.shape[1] >= MAXIMUM_SIZE / 2:
            axis = -1
        if self.chance.random() < 0.5:
            self.call(lambda x: keras.ops.concatenate(x, axis=axis), tensors)
        else:
            self.call(
                keras.layers.Concatenate(
                    axis=axis, dtype=DTYPE, name=self.name()
                ),
                tensors,
            )

    def add_shared_layer(self) -> None:
        """Calls one layer on two tensors of the same shape."""
        first = self.source()
        second = self.partner(first)
        layer = self.random_layer(first)
        self.call(layer, first)
        self.call(layer, second)

    def partner(self, tensor: Any) -> Any:
        """Returns a tensor of the same shape, sometimes the tensor itself."""
        alike = [x for x in self.tensors if x.shape == tensor.shape]
        if self.chance.random() < 0.5:
            return self.chance.choice(alike)
        layer = _channel_mixer(len(tensor.shape), tensor.shape[-1], self.name())
        return self.call(layer, self.chance.choice(alike))

    def outputs(self) -> list[Any]:
        """Ends the loose ends: a head each, or the bare tensor at times."""
        loose = [x for x in self.tensors if id(x) not in self.read]
        return [self.head(x) for x in loose[-3:]]

    def head(self, tensor: Any) -> Any:
        if self.chance.random() < 0.1:
            return tensor
        if len(tensor.shape) > 2:
            flatten = random_flattening(
                self.chance, self.name(), len(tensor.shape)
            )
            tensor = self.call(flatten, tensor)
        head = keras.layers.Dense(2, name=self.name(), **WEIGHTS)
        return self.call(head, tensor)

    def source(self) -> Any:
        """Returns the newest tensor, or an older one to branch from."""
        if self.chance.random() < 2 / 3:
            return self.tensors[-1]
        return self.chance.choice(self.tensors)

    def random_layer(self, tensor: Any) -> keras.Layer:
        return random_layer(
            self.chance,
            tensor.shape,
            self.name(),
            dropout=self.dropout,
            masked=get_keras_mask(tensor) is not None,
        )

    def call(self, operation: Any, argument: Any) -> Any:
        self.read.update(id(x) for x in keras.tree.flatten(argument))
        options: dict[str, Any] = {}
        if isinstance(operation, keras.layers.BatchNormalization):
            options["training"] = self.chance.choice([None] * 4 + [True, False])
        is_sequence = getattr(argument, "shape", ())[1:-1] == (STEPS,)
        takes_mask = isinstance(operation, TAKE_MASKS)
        if takes_mask and is_sequence and self.masks:
            mask = self.chance.choice([None, None, *self.masks])
            options |= {} if mask is None else {"mask": mask}
        self.tensors.append(operation(argument, **options))
        return self.tensors[-1]

    def name(self) -> str:
        self.count += 1
        return f"layer{self.count}"


def _channel_mixer(rank: int, units: int, name: str) -> keras.Layer:
    """Returns a layer that changes nothing but the number of channels."""
    if rank <= 3:  # which hands a mask on
        return keras.layers.Dense(units, name=name, **WEIGHTS)
    return of_rank("Conv", rank)(units, 1, name=name, **WEIGHTS)


def of_rank(name: str, rank: int, suffix: str = "") -> Callable[..., Any]:
    """Returns the layer class, such as Conv2D, for tensors of a rank."""
    return getattr(keras.layers, f"{name}{rank - 2}D{suffix}")


def random_layer(
    chance: random.Random,
    shape: Shape,
    name: str,
    *,
    dropout: bool = True,
    masked: bool = False,
) -> keras.Layer:
    """Returns a layer that can read a tensor of this shape.

    Behind a mask, most often one that hands it on or looks at it.
    """
    makers: dict[Callable[[], keras.Layer], int] = {
        lambda: random_dense(chance, name): 3 if len(shape) == 2 else 1,
        lambda: random_normalization(chance, name): 2,
        lambda: random_elementwise(chance, name): 3,
        lambda: random_noise(chance, name, len(shape)): 3 if dropout else 0,
    }
    rank = len(shape)
    if rank == 3:
        makers[lambda: random_recurrent(chance, name)] = 4
    if masked and rank == 3 and chance.random() < 0.15:
        return keras.layers.GlobalAveragePooling1D(dtype=DTYPE, name=name)
    if rank > 2 and not (masked and chance.random() < 0.7):
        sizes = shape[1:-1]
        small, large = min(sizes), max(sizes)
        is_small = large < MAXIMUM_SIZE and rank < 5
        makers |= {
            lambda: random_convolution(chance, name, rank, largest=small): 4,
            lambda: random_grouped(chance, name, shape): 2,
            lambda: random_transposed(chance, name, rank): is_small,
            lambda: random_flattening(chance, name, rank): 1,
            # TensorFlow pools three dimensions in float32 only.
            lambda: random_pooling(chance, name, rank): (
                2 * (small > 1 and rank < 5)
            ),
            lambda: random_cropping(chance, name, rank): small > 2,
            lambda: of_rank("UpSampling", rank)(2, dtype=DTYPE, name=name): (
                large <= MAXIMUM_SIZE / 2
            ),
            lambda: random_padding(chance, name, rank): large < MAXIMUM_SIZE,
            lambda: random_reshaping(chance, name, shape): 1,
        }
    return chance.choices(list(makers), weights=list(makers.values()))[0]()


def random_dense(chance: random.Random, name: str) -> keras.Layer:
    return keras.layers.Dense(
        chance.randint(2, 4),
        activation=chance.choice(ACTIVATIONS),
        use_bias=chance.random() < 0.5,
        name=name,
        **WEIGHTS,
    )


def random_convolution(
    chance: random.Random, name: str, rank: int, *, largest: int
) -> keras.Layer:
    largest = min(largest, 3)
    is_1d = rank == 3
    make = of_rank("Conv", rank)
    if rank < 5 and chance.random() < 0.3:
        make = random_separable(chance, rank)
        sizes = (chance.randint(1, largest),) * (rank - 2)
        return make(
            chance.randint(2, 4),
            sizes,
            padding=chance.choice(["valid", "same"]),
            activation=chance.choice(ACTIVATIONS),
            use_bias=chance.random() < 0.5,
            name=name,
        )
    return make(
        chance.randint(2, 4),
        tuple(chance.randint(1, largest) for _ in range(rank - 2)),
        strides=chance.randint(1, 2),
        padding=chance.choice(["valid", "same", "causal"][: 2 + is_1d]),
        activation=chance.choice(ACTIVATIONS),
        use_bias=chance.random() < 0.5,
        name=name,
        **WEIGHTS,
    )


def random_separable(
    chance: random.Random, rank: int
) -> Callable[..., keras.layers.Layer]:
    """Returns what makes a SeparableConv."""
    return functools.partial(
        of_rank("SeparableConv", rank),
        depth_multiplier=chance.randint(1, 2),
        depthwise_initializer="zeros",
        pointwise_initializer="zeros",
        dtype=DTYPE,
    )


def random_grouped(
    chance: random.Random, name: str, shape: Shape
) -> keras.Layer:
    """Returns a convolution of each channel, or of each half of them."""
    rank, channels = len(shape), shape[-1]
    size = chance.randint(1, min(min(shape[1:-1]), 2))
    options = {
        "padding": chance.choice(["valid", "same"]),
        "activation": chance.choice(ACTIVATIONS),
        "use_bias": chance.random() < 0.5,
        "name": name,
        "dtype": DTYPE,
    }
    if rank == 5 or (channels % 2 == 0 and chance.random() < 0.4):
        groups = 1 if channels % 2 else 2
        filters = groups * chance.randint(1, 2)
        return of_rank("Conv", rank)(
            filters, size, groups=groups, kernel_initializer="zeros", **options
        )
    return of_rank("DepthwiseConv", rank)(
        size,
        depth_multiplier=chance.choice([1, 1, 2]),
        depthwise_initializer="zeros",
        **options,
    )


def random_transposed(
    chance: random.Random, name: str, rank: int
) -> keras.Layer:
    return of_rank("Conv", rank, "Transpose")(
        chance.randint(2, 4),
        chance.randint(1, 2),
        strides=chance.randint(1, 2),
        padding=chance.choice(["valid", "same"]),
        activation=chance.choice(ACTIVATIONS),
        name=name,
        **WEIGHTS,
    )


def random_cropping(chance: random.Random, name: str, rank: int) -> keras.Layer:
    return of_rank("Cropping", rank)(1, dtype=DTYPE, name=name)


def random_reshaping(
    chance: random.Random, name: str, shape: Shape
) -> keras.Layer:
    """Returns what merges positions, adds an axis or changes their order."""
    sizes, channels = shape[1:-1], shape[-1]
    rank = len(shape)
    order = list(range(1, rank))
    chance.shuffle(order)
    makers = [
        lambda: keras.layers.Reshape(
            (math.prod(sizes), channels), dtype=DTYPE, name=name
        ),
        lambda: keras.layers.Reshape((-1, channels), dtype=DTYPE, name=name),
        lambda: keras.layers.Permute(order, dtype=DTYPE, name=name),
    ]
    if rank == 3:
        makers.append(
            lambda: keras.layers.Reshape(
                (1, *shape[1:]), dtype=DTYPE, name=name
            )
        )
    return chance.choice(makers)()


def random_normalization(chance: random.Random, name: str) -> keras.Layer:
    return keras.layers.BatchNormalization(
        center=chance.random() < 0.8,
        scale=chance.random() < 0.8,
        dtype=DTYPE,
        name=name,
    )


def random_elementwise(chance: random.Random, name: str) -> keras.Layer:
    layers = keras.layers
    makers = [
        layers.ReLU,
        layers.LeakyReLU,
        layers.ELU,
        layers.Identity,
        lambda **options: layers.ReLU(threshold=0.5, **options),
        lambda **options: layers.Activation("sigmoid", **options),
        lambda **options: layers.Activation("relu6", **options),
        lambda **options: layers.Rescaling(0.5, **options),
        lambda **options: layers.Rescaling(2.0, offset=-1.0, **options),
        lambda **options: layers.PReLU(alpha_initializer="zeros", **options),
    ]
    return chance.choice(makers)(dtype=DTYPE, name=name)


def random_noise(chance: random.Random, name: str, rank: int) -> keras.Layer:
    layers = keras.layers
    makers: list[Any] = [layers.Dropout, layers.Dropout]
    makers += [layers.GaussianDropout, layers.GaussianNoise]
    if rank > 2:
        makers.append(
            getattr(layers, f"SpatialDropout{rank - 2}D"),
        )
    rate = chance.choice([0.0, 0.5])
    return chance.choice(makers)(rate, seed=7, dtype=DTYPE, name=name)


def random_recurrent(chance: random.Random, name: str) -> keras.Layer:
    """Returns what goes through a sequence step by step."""
    layers = keras.layers
    makers: list[Any] = [layers.LSTM, layers.GRU, layers.SimpleRNN]
    units = chance.randint(2, 3)
    returns_all = chance.random() < 0.7
    kind = chance.random()
    if kind < 0.1:
        return layers.TimeDistributed(
            layers.Dense(units, **WEIGHTS), dtype=DTYPE, name=name
        )
    if kind < 0.15:  # -9 is nowhere: everything stays in, in all rows
        return layers.Masking(-9.0, dtype=DTYPE, name=name)
    make = chance.choice(makers)
    if kind < 0.3 and make is not layers.SimpleRNN:  # forgets its seed
        inner = make(units, return_sequences=returns_all, **RECURRENT)
        return layers.Bidirectional(inner, dtype=DTYPE, name=name)
    return make(units, return_sequences=returns_all, name=name, **RECURRENT)


def random_pooling(chance: random.Random, name: str, rank: int) -> keras.Layer:
    if chance.random() < 0.2:
        kind = chance.choice(["AdaptiveMaxPooling", "AdaptiveAveragePooling"])
        return of_rank(kind, rank)(2, dtype=DTYPE, name=name)
    kind = chance.choice(["MaxPooling", "AveragePooling"])
    padding = chance.choice(["valid", "same"])
    return of_rank(kind, rank)(2, padding=padding, dtype=DTYPE, name=name)


def random_padding(chance: random.Random, name: str, rank: int) -> keras.Layer:
    padding: Any = chance.choice([1, (0, 1)])
    if rank > 3 and padding != 1:
        padding = ((0, 1),) * (rank - 2)
    return of_rank("ZeroPadding", rank)(padding, dtype=DTYPE, name=name)


def random_flattening(
    chance: random.Random, name: str, rank: int
) -> keras.Layer:
    flattenings = [
        keras.layers.Flatten,
        of_rank("GlobalAveragePooling", rank),
        of_rank("GlobalMaxPooling", rank),
    ]
    return chance.choice(flattenings)(dtype=DTYPE, name=name)
