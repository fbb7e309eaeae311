"""A layer that would lose something when it is made anew is refused."""

import keras
import numpy as np
import pytest

import keras_kddp as kddp
from keras_kddp.surgery import Rule, register_rule

layers = keras.layers
ROWS = np.random.default_rng(0).random((16, 6)).astype("float32")


class Centering(layers.Layer):
    """Keeps statistics where no copy finds them."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.mean = None
        self.calls = 0

    def adapt(self, rows):
        self.mean = rows.mean(axis=0)

    def call(self, x):
        self.calls += 1
        return x if self.mean is None else x - self.mean


class Around(layers.Layer):
    """Has such a layer inside."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = Centering()

    def call(self, x):
        return self.inner(x)


class Told(Centering):
    """Tells its statistics in the config."""

    def __init__(self, mean=None, **kwargs):
        super().__init__(**kwargs)
        self.mean = None if mean is None else np.array(mean)

    def get_config(self):
        mean = None if self.mean is None else self.mean.tolist()
        return {**super().get_config(), "mean": mean}


class Lookup(layers.Layer):
    """Keeps a table of words, and shapes from its `build`."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.table = {"a": 1.0}
        self.width = None

    def build(self, input_shape):
        self.width = input_shape[-1]

    def call(self, x):
        return x * self.table["a"]


class Amplified(layers.Dense):
    """A Dense that keeps a number of its own."""

    gain = 1.0

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.gain = 1.0

    def call(self, x):
        return super().call(x) * self.gain


class Clipped(layers.Layer):
    """Shows what it knows for large numbers only."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.highest = 255.0

    def call(self, x):
        return keras.ops.minimum(x, self.highest)


class Mapped(layers.Layer):
    """Has a function that may be another one."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.function = keras.ops.relu

    def call(self, x):
        return self.function(x)


class Bounded(layers.Normalization):
    """A Normalization that keeps a bound beside its statistics."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.bound = 3.0

    def call(self, x):
        return keras.ops.clip(super().call(x), -self.bound, self.bound)


class Extended(layers.Layer):
    """May get a layer inside it later."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = None

    def call(self, x):
        return x if self.inner is None else self.inner(x)


class Caching(layers.Layer):
    """Keeps its last output, of windows of seven."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.last = None

    def call(self, x):
        self.last = keras.ops.reshape(x, (-1, 7, 6))
        return x


def with_value(layer, **values):
    for name, value in values.items():
        setattr(layer, name, value)
    return layer


def bounded():
    layer = Bounded(name="mine")
    layer.adapt(ROWS)
    return layer


def model_with(layer):
    inputs = keras.Input((6,))
    x = layers.Dense(8, "relu", name="fc")(layer(inputs))
    return keras.Model(inputs, layers.Dense(3)(x))


def adapted(layer):
    (layer.inner if isinstance(layer, Around) else layer).adapt(ROWS)
    return layer


def with_table(value):
    layer = Lookup(name="words")
    layer.table["a"] = value
    return layer


COPIES = {
    "prepare": kddp.prepare,
    "finalize": kddp.finalize,
    "remove": lambda model: kddp.remove_units(model, {"fc": [2]}),
}


@pytest.mark.parametrize("copy", COPIES.values(), ids=COPIES)
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: adapted(Centering(name="mine")), "'mine' .*mean"),
        (lambda: adapted(Around(name="mine")), "'mine' .*mean"),
        (lambda: with_table(2.0), "'words' .*table"),
        (
            lambda: with_value(Amplified(6, name="mine"), gain=3.0),
            "'mine' .*gain",
        ),
        (
            lambda: with_value(Clipped(name="mine"), highest=120.0),
            "'mine' .*highest",
        ),
        (
            lambda: with_value(Mapped(name="mine"), function=keras.ops.tanh),
            "'mine' .*function",
        ),
        (lambda: with_value(bounded(), bound=0.5), r"'mine' .*\['bound'\]"),
        (
            lambda: with_value(Extended(name="mine"), inner=layers.Dense(6)),
            "'mine' .*the layers inside",
        ),
        (
            lambda: keras.Sequential(
                [keras.Input((6,)), adapted(Centering(name="mine"))],
                name="pre",
            ),
            "'pre/mine' .*mean",
        ),
    ],
    ids=[
        "attribute",
        "inner layer",
        "table",
        "subclass",
        "bound",
        "function",
        "subclass of preprocessing",
        "later layer",
        "nested model",
    ],
)
def test_a_layer_that_a_copy_could_not_equal_is_named(make, said, copy):
    model = model_with(make())
    before = model.get_weights()

    with pytest.raises(kddp.surgery.SurgeryError, match=said):
        copy(model)

    for now, then in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)


@pytest.mark.parametrize("copy", COPIES.values(), ids=COPIES)
@pytest.mark.parametrize(
    "make",
    [
        Centering,  # it counts its calls: that changes nothing
        Around,
        lambda: adapted(Told()),
        lambda: with_table(1.0),
        bounded,
        Mapped,
        Extended,
    ],
    ids=[
        "counter",
        "inner layer",
        "config",
        "table",
        "preprocessing",
        "function",
        "no layer",
    ],
)
def test_a_layer_that_a_copy_equals_is_taken(make, copy):
    model = model_with(make())
    kernel, bias = model.get_layer("fc").get_weights()
    kernel[:, 2], bias[2] = 0, 0
    model.get_layer("fc").set_weights([kernel, bias])

    np.testing.assert_allclose(copy(model)(ROWS), model(ROWS), atol=1e-6)


def test_a_last_output_is_no_state():
    inputs = keras.Input((None, 6))
    x = layers.Dense(8, "relu")(Caching()(inputs))
    model = keras.Model(inputs, layers.Dense(3)(x))
    model(np.ones((2, 14, 6), "float32"))

    data = np.random.default_rng(1).random((2, 7, 6)).astype("float32")
    np.testing.assert_allclose(
        kddp.prepare(model)(data), model(data), atol=1e-6
    )


class Scaled(layers.Layer):
    """A weight for each channel."""

    def build(self, input_shape):
        self.scale = self.add_weight(
            name="scale", shape=(input_shape[-1],), initializer="ones"
        )

    def call(self, x):
        return x * self.scale


class Renamed(Scaled):
    """Saves its weight under another name, and nothing else."""

    def save_own_variables(self, store):
        store["factor"] = keras.ops.convert_to_numpy(self.scale)

    def load_own_variables(self, store):
        self.scale.assign(store["factor"])


class Counted(Scaled):
    """Saves a number for each channel beside its weight."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.counts = [0.0] * 8

    def save_own_variables(self, store):
        super().save_own_variables(store)
        store["counts"] = np.array(self.counts)

    def load_own_variables(self, store):
        self.counts = list(store["counts"])
        self.scale.assign(store["0"])


class Filed(Scaled):
    """Saves a file beside its weight."""

    def save_assets(self, dir_path):
        with open(f"{dir_path}/words.txt", "w") as file:
            file.write("a b")

    def load_assets(self, dir_path):
        with open(f"{dir_path}/words.txt") as file:
            assert file.read() == "a b"


@register_rule(Scaled)
class ScaledRule(Rule):
    channelwise = True

    def flow(self, call):
        call.slice("scale", 0, call.inputs[0])
        return call.inputs[0]


def scaled_model(layer):
    inputs = keras.Input((6,))
    x = layer(layers.Dense(8, "relu", name="fc")(inputs))
    return keras.Model(inputs, layers.Dense(3)(x))


@pytest.mark.parametrize("layer_class", [Scaled, Renamed])
def test_weights_that_are_saved_otherwise_are_cut(layer_class):
    model = scaled_model(layer_class(name="scaled"))
    model.get_layer("scaled").scale.assign(np.arange(8.0))

    smaller = kddp.remove_units(model, {"fc": [2]})

    np.testing.assert_array_equal(
        smaller.get_layer("scaled").scale, [0, 1, 3, 4, 5, 6, 7]
    )


@pytest.mark.parametrize("layer_class", [Counted, Filed])
def test_weights_with_a_state_beside_them_stay_whole(layer_class):
    model = scaled_model(layer_class(name="scaled"))

    with pytest.raises(kddp.surgery.SurgeryError, match="fc.*scaled .*state"):
        kddp.remove_units(model, {"fc": [2]})
    assert "saves state of its own" in kddp.explain(model)


class Unnamed(layers.Layer):
    """Neither its constructor nor its config knows a name."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def build(self, input_shape):
        self.shift = self.add_weight(
            name="shift", shape=(6,), initializer="random_normal"
        )

    def call(self, x):
        return self.factor * x + self.shift

    def get_config(self):
        return {"factor": self.factor}


@pytest.mark.parametrize("is_nested", [False, True], ids=["flat", "nested"])
@pytest.mark.parametrize("copy", COPIES.values(), ids=COPIES)
def test_layers_without_a_name_of_their_own_keep_weights_and_names(
    copy, is_nested
):
    first, second = Unnamed(2.0), Unnamed(3.0)
    if is_nested:
        first = keras.Sequential([keras.Input((6,)), first])
    model = keras.Sequential(
        [
            keras.Input((6,)),
            first,
            second,
            layers.Dense(8, "relu", name="fc"),
            layers.Dense(3),
        ]
    )
    kernel, bias = model.get_layer("fc").get_weights()
    kernel[:, 2], bias[2] = 0, 0
    model.get_layer("fc").set_weights([kernel, bias])

    found = copy(model)

    np.testing.assert_allclose(found(ROWS), model(ROWS), atol=1e-6)
    names = [layer.name for layer in found.layers if "penal" not in layer.name]
    assert names == [layer.name for layer in model.layers]


def test_two_classes_of_one_name_stay_two():
    def make(factor):
        class Twin(layers.Layer):
            def call(self, x):
                return factor * x

        return Twin()

    inputs = keras.Input((6,))
    x = layers.Dense(8, "relu", name="fc")(make(3.0)(make(2.0)(inputs)))
    model = keras.Model(inputs, layers.Dense(3)(x))

    np.testing.assert_allclose(
        kddp.prepare(model)(ROWS), model(ROWS), rtol=1e-5, atol=1e-6
    )


def test_a_layer_that_its_config_cannot_make_is_named():
    class NoArguments(layers.Layer):
        def __init__(self):
            super().__init__(name="mine")

        def call(self, x):
            return x

    with pytest.raises(kddp.surgery.SurgeryError, match="layer 'mine'"):
        kddp.prepare(model_with(NoArguments()))
