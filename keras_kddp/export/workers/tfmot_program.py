"""What TFMOT's process does: a described student in, a fine-tuned one out."""

import runpy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy
import tensorflow
import tensorflow_model_optimization as tfmot
import tf_keras
from tensorflow_model_optimization.python.core.clustering.keras.experimental import (  # noqa: E501
    cluster,
)  # noqa: E501

_FOLDER = Path(__file__).parent
_bridge: Any = runpy.run_path(str(_FOLDER / "tf_keras_program.py"))
_models: Any = _bridge["_models"]
_distillation: Any = runpy.run_path(str(_FOLDER / "distillation_program.py"))
_OWN = (
    *("kernel", "bias", "pointwise_kernel", "alpha"),
    *("gamma", "beta", "moving_mean", "moving_variance"),
)
_RANGE_ROWS = 512
_DECAYING = 0.6  # of the sparsity's stage; then it stays
_MASK_UPDATES = 50


def answer(
    description: dict[str, Any],
    weights: str,
    data: str,
    options: dict[str, Any],
    found: str,
    saved_model: str,
    outputs: list[str],
    *,
    report: Callable[..., None],
) -> dict[str, Any]:
    """Fine-tunes a student, one technique after the other.

    Args:
        description: Of the student; see `portable_models.py`.
        weights: Its weights, .npz.
        data: "x", "y", "sample_weight" and the "teacher"'s logits, .npz.
        options: As `finetune_with_tfmot` takes them.
        found: File for the weights that come out.
        saved_model: Folder for the model at batch 1, quantization included.
        outputs: Names of its outputs.
        report: Given {"epoch": ..., "loss": ..., "accuracy": ...} after each
            epoch, and called after each batch.

    Returns:
        {"zero_fractions": {kernel: ...}, "distinct_values": {...}}.
    """
    tf_keras.utils.set_random_seed(options["seed"])
    student = _bridge["built"](description, weights)
    with numpy.load(data) as file:
        training = _distillation["Training"](dict(file), options)
    done: list[str] = []
    for technique in options["techniques"]:
        stage = _STAGES[technique](student, done, options, training)
        training.fit(stage.model, stage.callbacks, report)
        student = stage.finish(stage.model)
        kept = _models["weights_of"](_inner_layers(student, description))
        if technique != "quantization":  # TFMOT leaves a broken graph
            student = _models["build"](tf_keras, description, kept)
        done.append(technique)
    numpy.savez(found, **kept)
    _save(student, description, saved_model, outputs)
    return _counts(kept)


def _counts(weights: dict[str, Any]) -> dict[str, Any]:
    """Returns the zeros and the different values of every kernel."""
    kernels = {k: v for k, v in weights.items() if k.endswith("kernel")}
    return {
        "zero_fractions": {
            name: float(numpy.mean(kernel == 0))
            for name, kernel in kernels.items()
        },
        "distinct_values": {
            name: len(numpy.unique(kernel)) for name, kernel in kernels.items()
        },
    }


class _Stage(NamedTuple):
    """A student prepared for one technique.

    Attributes:
        model: The student in TFMOT's wrappers.
        finish: Takes off those that are for training only.
        callbacks: Of its training.
    """

    model: Any
    finish: Callable[[Any], Any]
    callbacks: Sequence[Any] = ()


def _sparsity(
    student: Any, done: list[str], options: dict[str, Any], training: Any
) -> _Stage:
    """Zeroes the smallest entries of every kernel, ever more.

    Zhu & Gupta 2017, arXiv 1710.01878.
    """
    steps = training.steps
    schedule = tfmot.sparsity.keras.PolynomialDecay(
        0.0,
        options["sparsity"],
        begin_step=0,
        end_step=max(1, int(_DECAYING * steps)),
        # Its default, 100, leaves short runs without any zero.
        frequency=max(1, steps // _MASK_UPDATES),
    )
    return _Stage(
        tfmot.sparsity.keras.prune_low_magnitude(student, schedule),
        tfmot.sparsity.keras.strip_pruning,
        [tfmot.sparsity.keras.UpdatePruningStep()],
    )


def _clustering(
    student: Any, done: list[str], options: dict[str, Any], training: Any
) -> _Stage:
    """Lets every kernel have few different values."""
    keras = tfmot.clustering.keras
    clustered = cluster.cluster_weights(
        student,
        number_of_clusters=options["clusters"],
        cluster_centroids_init=keras.CentroidInitialization.KMEANS_PLUS_PLUS,
        preserve_sparsity="sparsity" in done,
    )
    return _Stage(clustered, keras.strip_clustering)


def _quantization(
    student: Any, done: list[str], options: dict[str, Any], training: Any
) -> _Stage:
    """Trains with the roundings of int8 (Jacob et al. 2018)."""
    keras, combine = tfmot.quantization.keras, tfmot.experimental.combine
    annotated = keras.quantize_annotate_model(student)
    finish = lambda model: model  # noqa: E731
    if "clustering" in done:
        scheme = combine.Default8BitClusterPreserveQuantizeScheme(
            preserve_sparsity="sparsity" in done
        )
        finish = combine.strip_clustering_cqat
    elif "sparsity" in done:
        scheme = combine.Default8BitPrunePreserveQuantizeScheme()
    else:
        scheme = keras.default_8bit.Default8BitQuantizeScheme()
    quantized = keras.quantize_apply(annotated, scheme)
    _set_ranges(quantized, student, training.x[:_RANGE_ROWS])
    return _Stage(quantized, finish)


def _set_ranges(quantized: Any, student: Any, x: Any) -> None:
    """Starts activations with the ranges that the student has.

    TFMOT starts them at -6 to 6 and moves them by a thousandth per step: in
    short runs larger logits would stay cut off.
    """
    outputs = {layer.name: layer.output for layer in student.layers}
    values = tf_keras.Model(student.inputs, outputs)(x, training=False)
    for layer in quantized.layers:
        inner = getattr(layer, "layer", layer).name
        value = values.get(inner, x)
        for variable in layer.weights:
            name = variable.name.split("/")[-1]
            if name in ("post_activation_min:0", "quantize_layer_min:0"):
                variable.assign(min(0.0, float(numpy.min(value))))
            if name in ("post_activation_max:0", "quantize_layer_max:0"):
                variable.assign(max(0.0, float(numpy.max(value))))


_STAGES: dict[str, Any] = {
    "sparsity": _sparsity,
    "clustering": _clustering,
    "quantization": _quantization,
}


def _inner_layers(student: Any, description: dict[str, Any]) -> dict[str, Any]:
    """Returns the described layers, taken out of TFMOT's wrappers."""
    found = {}
    for layer in student.layers:
        inner = getattr(layer, "layer", layer)
        if inner.name in description["layers"]:
            found[inner.name] = _Weighted(layer, inner)
    return found


class _Weighted:
    """The weights of a layer that a wrapper may hold.

    Attributes:
        weights: Those of the layer itself.
    """

    def __init__(self, outer: Any, inner: Any) -> None:
        self.weights = [
            variable
            for variable in outer.weights
            if _models["weight_name"](variable) in _OWN
        ]


def _save(
    model: Any,
    description: dict[str, Any],
    folder: str,
    outputs: list[str],
) -> None:
    module = tensorflow.Module()
    module.model = model
    (entry,) = description["inputs"]

    def serve(tensor: Any) -> dict[str, Any]:
        return {outputs[0]: model(tensor, training=False)}

    module.serve = tensorflow.function(
        serve,
        input_signature=[
            tensorflow.TensorSpec(
                (1, *entry["shape"]), entry["dtype"], name=entry["name"]
            )
        ],
    )
    tensorflow.saved_model.save(
        module, folder, signatures={"serving_default": module.serve}
    )
