"""Surgery on every model family of keras.applications."""

from collections import Counter

import keras
import numpy as np
import pytest
from helpers import (
    float64,
    held_outputs,
    outputs_of,
    relative_error,
)

from keras_kddp.surgery import ChannelGraph, explain, remove_units
from keras_kddp.surgery.folding import fold_constants

applications = keras.applications
FAMILIES = {
    "MobileNet": (applications.MobileNet, 32),
    "MobileNetV2": (applications.MobileNetV2, 32),
    "MobileNetV3": (applications.MobileNetV3Small, 32),
    "ResNet": (applications.ResNet50, 32),
    "ResNetV2": (applications.ResNet50V2, 32),
    "VGG": (applications.VGG16, 32),
    "Inception": (applications.InceptionV3, 75),
    "InceptionResNet": (applications.InceptionResNetV2, 75),
    "Xception": (applications.Xception, 71),
    "DenseNet": (applications.DenseNet121, 32),
    "EfficientNet": (applications.EfficientNetB0, 32),
    "EfficientNetV2": (applications.EfficientNetV2B0, 32),
    "NASNet": (applications.NASNetMobile, 32),
    "ConvNeXt": (applications.ConvNeXtTiny, 32),
}
FAST = ["MobileNetV2"]


def family(name: str) -> keras.Model:
    """Returns a model with random weights and moving statistics that fit."""
    make, size = FAMILIES[name]
    model = make(
        weights=None,
        input_shape=(size, size, 3),
        classes=7,
        classifier_activation=None,
    )
    random = np.random.default_rng(1)
    for weight in model.weights:
        if weight.name == "gamma" or "layer_scale" in weight.path:
            value = random.uniform(0.5, 1.5, weight.shape)
        elif weight.name in ("beta", "bias"):
            value = random.normal(0, 0.3, weight.shape)
        else:
            continue
        weight.assign(value.astype(weight.dtype))
    fit_statistics(model, images(model, count=8))
    return model


def fit_statistics(model: keras.Model, x: np.ndarray) -> None:
    """Makes every BatchNormalization's statistics those of `x`."""
    normalizations = [
        layer
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    momenta = [layer.momentum for layer in normalizations]
    for layer in normalizations:
        layer.momentum = 0.0
    model(x, training=True)
    for layer, momentum in zip(normalizations, momenta, strict=True):
        layer.momentum = momentum


def images(model: keras.Model, count: int, seed: int = 2) -> np.ndarray:
    random = np.random.default_rng(seed)
    shape = (count, *model.inputs[0].shape[1:])
    return random.uniform(0, 255, shape).astype(model.inputs[0].dtype)


def random_removal(
    graph: ChannelGraph, seed: int, share: float = 0.25
) -> dict[str, list[int]]:
    """Returns a share of the groups that may go, one unit left a layer."""
    groups = graph.groups()
    free = [number for number, group in groups.items() if not group.reason]
    refused = fold_constants(graph, set(free), {}, training=False).refusals
    free = [number for number in free if number not in refused]
    random = np.random.default_rng(seed)
    left = Counter({name: len(labels) for name, labels in graph.units.items()})
    units: dict[str, list[int]] = {}
    for number in random.permutation(free)[: int(share * len(free))].tolist():
        taken = Counter(name for name, _ in groups[number].members)
        if all(left[name] > count for name, count in taken.items()):
            left -= taken
            for name, unit in groups[number].members:
                units.setdefault(name, []).append(unit)
    removed = sum(map(len, units.values()))
    total = sum(len(groups[number].members) for number in free)
    assert removed >= 0.2 * total
    return units


def check_family(name: str, seeds: range) -> None:
    model = family(name)
    graph = ChannelGraph(model)
    x = images(model, count=2)
    tolerance = 1e-10 if model.outputs[0].dtype == "float64" else 1e-5
    (original,) = outputs_of(model, x)
    assert np.abs(original[0] - original[1]).max() > 1e-6
    for seed in seeds:
        units = random_removal(graph, seed)
        smaller = remove_units(model, units)
        received = outputs_of(smaller, x)
        expected = held_outputs(model, units, x)
        assert relative_error(received, expected) <= tolerance
        assert relative_error(received, [original]) > 1e-3
        after = ChannelGraph(smaller).units
        for layer, indices in units.items():
            assert len(after[layer]) == len(graph.units[layer]) - len(indices)


@pytest.mark.parametrize(
    "name",
    [
        name if name in FAST else pytest.param(name, marks=pytest.mark.slow)
        for name in FAMILIES
    ],
)
def test_a_family_equals_the_oracle(name):
    with float64():
        check_family(name, range(3))


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_equals_the_oracle_in_float32(name):
    check_family(name, range(1))


@pytest.mark.parametrize("name", ["MobileNetV2", "ResNetV2", "EfficientNetV2"])
def test_every_convolution_of_a_family_can_shrink_but_the_classifier(name):
    make, size = FAMILIES[name]
    model = make(weights=None, input_shape=(size, size, 3), classes=7)
    rows = [line.split() for line in explain(model).splitlines()[1:]]
    stays = [row[0] for row in rows if row[2] != row[1]]
    allowed = {model.layers[-1].name, "normalization"}
    assert set(stays) <= allowed | {"-"}
    assert len(rows) > 30
