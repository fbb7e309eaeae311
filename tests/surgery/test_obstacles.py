"""Which units stay, and the reason that is given."""

import keras
import numpy as np
import pytest
from helpers import (
    error_of_removal,
    float64,
    randomize,
    reason_of,
)
from small_models import (
    Doubling,
    RenamedDense,
    dense_model,
    image_model,
)

from keras_kddp.surgery import (
    ChannelGraph,
    SurgeryError,
    plan_removal,
)

layers = keras.layers


@pytest.fixture(autouse=True)
def in_float64():
    with float64():
        yield


class FlippedDense(layers.Dense):
    def call(self, inputs):
        return keras.ops.flip(super().call(inputs), -1)


class FlippedReLU(layers.ReLU):
    def call(self, inputs):
        return keras.ops.flip(super().call(inputs), -1)


class StandardizedConv2D(layers.Conv2D):
    def convolution_op(self, inputs, kernel):
        return super().convolution_op(inputs, kernel / keras.ops.std(kernel))


class OwnCall(keras.Sequential):
    def call(self, inputs, training=None, mask=None):
        return 2 * super().call(inputs, training=training, mask=mask)


def oddly(x):
    return keras.ops.flip(x, -1)


def removable_units(model) -> dict[str, int]:
    graph = ChannelGraph(model)
    return {
        name: sum(
            group not in graph.reasons for group in graph.group_numbers[labels]
        )
        for name, labels in graph.units.items()
    }


@pytest.mark.parametrize(
    ("middle", "reason"),
    [
        (lambda: Doubling(name="d"), r"d \(Doubling\) has no surgery rule"),
        (lambda: FlippedReLU(name="d"), r"d \(FlippedReLU\) has no surgery"),
        (
            lambda: StandardizedConv2D(2, 1, name="d"),
            r"d \(StandardizedConv2D\) has no surgery rule",
        ),
        (lambda: layers.Softmax(name="d"), r"d \(Softmax\) mixes its channels"),
        (
            lambda: layers.Activation("softmax", name="d"),
            r"d \(Activation\) ends in the activation softmax, which is not",
        ),
        (lambda: layers.Activation(oddly), "ends in the activation oddly"),
        (
            lambda: layers.BatchNormalization(axis=1, name="d"),
            r"d \(BatchNormalization\) reads axis 1 of a tensor with channels "
            "on axis 3",
        ),
        (
            lambda: layers.Rescaling([1.0, 2.0, 3.0]),
            "scales each channel by a number of its own",
        ),
        (
            lambda: layers.MaxPooling2D(1, data_format="channels_first"),
            "reads axis 1 of a tensor with channels on axis 3",
        ),
        (
            lambda: layers.Dropout(0.5, noise_shape=(None, 1, 1, 3), name="d"),
            r"d \(Dropout\) has a noise_shape with 3 channels",
        ),
        (
            lambda: OwnCall([layers.ReLU()], name="d"),
            r"d \(OwnCall\) is a nested model that surgery cannot look into",
        ),
    ],
)
def test_a_layer_that_channels_cannot_pass_says_why(middle, reason):
    model = image_model(middle())
    with pytest.raises(
        SurgeryError,
        match=rf"Units conv\[0\]\S* .*cannot be removed: .*{reason}",
    ):
        plan_removal(model, {"conv": [0]})


def test_zero_padding_in_channels_first_blocks():
    padding = layers.ZeroPadding2D(1, data_format="channels_first")
    model = image_model(padding)
    assert "reads axis 1 of a tensor" in reason_of(model, "conv")


@pytest.mark.parametrize(
    ("operation", "reason"),
    [
        (keras.ops.softmax, r"softmax\S* \(Softmax\) has no surgery rule"),
        (lambda x: x / (x + 1), "takes a tensor where surgery only follows a"),
        (lambda x: keras.ops.split(x, 3, axis=-1)[0], "has several outputs"),
        (
            lambda x: x + np.array([1.0, 2.0, 3.0]),
            "joins an array to its input",
        ),
        (
            lambda x: x + x[:, :1],
            r"\(GetItem\) has no surgery rule",
        ),
    ],
)
def test_a_raw_operation_without_a_rule_says_so(operation, reason):
    x = keras.Input((2,))
    hidden = operation(layers.Dense(3, name="fc")(x))
    model = keras.Model(x, layers.Dense(2)(hidden))
    with pytest.raises(SurgeryError, match=rf"fc\[0\].*: .*{reason}"):
        plan_removal(model, {"fc": [0]})


def test_an_operation_with_a_scalar_result_blocks_what_it_reads_only():
    x = keras.Input((2,))
    hidden = layers.Dense(3, name="fc")(x)
    hidden = hidden / keras.ops.max(hidden)
    last = layers.Dense(3, activation="relu", name="last")(hidden)
    model = randomize(keras.Model(x, layers.Dense(2)(last)), seed=1)
    assert "reduces the axis of channels" in reason_of(model, "fc")
    assert error_of_removal(model, {"last": [0]}) <= 1e-10


def test_one_channel_that_a_sum_spreads_over_others_stays_and_they_may_go():
    x = keras.Input((2,))
    # Never 3 units: Keras 3.15 takes (3, 1), a batch of 3, for a bias of 3.
    wide = layers.Dense(5, name="wide")(x)
    narrow = layers.Dense(1, name="narrow")(x)
    total = layers.Add(name="add")([wide, narrow])
    model = randomize(keras.Model(x, layers.Dense(2)(total)), seed=1)
    assert reason_of(model, "narrow") == (
        "add (Add) spreads it over all channels"
    )
    assert error_of_removal(model, {"wide": [1]}) <= 1e-10


def test_outputs_stay():
    with pytest.raises(
        SurgeryError,
        match=r"Units head\[0\] cannot be removed: it is an output of the",
    ):
        plan_removal(dense_model(), {"head": [0]})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda layer: layer.enable_lora(1), "carries LoRA weights"),
        (lambda layer: layer.quantize("int8"), "is quantized"),
    ],
)
def test_what_a_changed_kernel_reads_stays(change, reason):
    model = dense_model()
    change(model.get_layer("head"))
    assert reason_of(model, "fc") == f"head (Dense) {reason}"


def test_flatten_of_an_unknown_size_blocks():
    x = keras.Input((None, 4, 2))
    image = layers.Conv2D(3, 2, name="conv")(x)
    model = keras.Model(x, layers.Flatten(name="flat")(image))
    assert reason_of(model, "conv") == (
        "flat (Flatten) takes channels apart or does not know the size of its "
        "input (None, None, 3, 3)"
    )


def test_a_sum_with_an_input_stays():
    x = keras.Input((3,))
    hidden = layers.Dense(3, name="fc")(x) + x
    model = keras.Model(x, layers.Dense(1)(hidden))
    assert reason_of(model, "fc") == "it is an input of the model"


def test_a_dense_layer_with_softmax_inside_stays():
    x = keras.Input((3,))
    hidden = layers.Dense(3, activation="softmax", name="fc")(x)
    model = keras.Model(x, layers.Dense(1)(hidden))
    assert reason_of(model, "fc").startswith(
        "fc (Dense) ends in the activation softmax"
    )


def test_a_layer_as_activation_passes_only_while_it_computes_what_keras_does():
    def model_with(activation):
        return image_model(layers.Dense(3, activation=activation, name="fc"))

    model = model_with(layers.LeakyReLU(0.3))
    assert error_of_removal(model, {"fc": [0]}) <= 1e-10
    for mixing in (layers.Activation("softmax"), layers.Softmax()):
        assert "ends in the activation" in reason_of(model_with(mixing), "fc")
    model = model_with(FlippedReLU())
    assert "ends in the activation FlippedReLU" in reason_of(model, "fc")


def test_what_blocks_one_layer_leaves_the_others_free():
    model = keras.Sequential(
        [
            keras.Input((2,)),
            layers.Dense(3, name="a"),
            FlippedDense(3, name="b"),
            layers.Dense(3, activation=oddly, name="c"),
            RenamedDense(3, name="d"),
            layers.Dense(1, name="head"),
        ]
    )
    randomize(model, seed=1)
    # b has no units of its own: what it does to channels is not known.
    assert removable_units(model) == {"a": 0, "c": 0, "d": 3, "head": 0}
    assert error_of_removal(model, {"d": [0, 2]}) <= 1e-10


@pytest.mark.filterwarnings("ignore:The object being serialized includes")
def test_a_lambda_as_activation_stays_but_the_rest_can_go():
    model = keras.Sequential(
        [
            keras.Input((2,)),
            layers.Dense(3, activation=lambda x: 2 * x, name="doubled"),
            layers.Dense(3, activation=lambda x: 3 * x, name="tripled"),
            layers.Dense(3, name="fc"),
            layers.Dense(1, name="head"),
        ]
    )
    randomize(model, seed=1)
    assert removable_units(model)["fc"] == 3
    assert error_of_removal(model, {"fc": [1]}) <= 1e-10
