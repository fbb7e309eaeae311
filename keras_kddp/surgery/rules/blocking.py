"""Layers that let no unit through, with the reason."""

from typing import Any

import keras

from keras_kddp.surgery.registry import block_class

layers = keras.layers

_NORMALIZES = "normalizes over its channels, so that each depends on all"
_MIXES = "mixes its channels without weights that could be cut"
_RECURS = "ties its units by their recurrence"
_ATTENDS = "splits its channels into heads or compares them"
_WRAPS = "wraps a layer whose channels surgery does not follow"
_MASKS = "leaves out the steps at which all its channels have one value"
_PREPARES = "prepares data, whose channels stay"
_FOREIGN = "runs code of another framework"

REASONS: dict[str, tuple[Any, ...]] = {
    _NORMALIZES: (
        layers.LayerNormalization,
        layers.GroupNormalization,
        layers.RMSNormalization,
        layers.UnitNormalization,
    ),
    _MIXES: (layers.Softmax, layers.Dot),
    _MASKS: (layers.Masking,),
    "shifts a removed unit, which is 0, to another value in training": (
        layers.AlphaDropout,
    ),
    "computes by an equation that surgery does not read": (layers.EinsumDense,),
    "reads the same weights along two axes": (layers.ReversibleEmbedding,),
    _RECURS: (
        layers.RNN,
        *[layers.GRUCell, layers.LSTMCell, layers.SimpleRNNCell],
        layers.StackedRNNCells,
        *[layers.ConvLSTM1D, layers.ConvLSTM2D, layers.ConvLSTM3D],
    ),
    _ATTENDS: (
        layers.Attention,
        layers.AdditiveAttention,
        layers.MultiHeadAttention,
        layers.GroupQueryAttention,
    ),
    _WRAPS: (
        layers.Wrapper,
        layers.Bidirectional,
        layers.TimeDistributed,
        layers.SpectralNormalization,
        layers.Pipeline,
    ),
    "computes by a function that surgery cannot read": (layers.Lambda,),
    _FOREIGN: (
        layers.FlaxLayer,
        layers.JaxLayer,
        layers.TFSMLayer,
        layers.TorchModuleWrapper,
    ),
    _PREPARES: (
        *[layers.Normalization, layers.Discretization, layers.Hashing],
        *[layers.HashedCrossing, layers.CategoryEncoding],
        *[layers.IntegerLookup, layers.StringLookup],
        layers.TextVectorization,
        *[layers.MelSpectrogram, layers.STFTSpectrogram],
        *[layers.Resizing, layers.CenterCrop, layers.MaxNumBoundingBoxes],
        *[layers.AugMix, layers.AutoContrast, layers.CutMix, layers.MixUp],
        *[layers.RandAugment, layers.Solarization, layers.Equalization],
        layers.ContrastLimitedAdaptiveHistogramEqualization,
        *[
            value
            for name, value in vars(layers).items()
            if name.startswith("Random")
        ],
    ),
}


for _reason, _classes in REASONS.items():
    for _class in _classes:
        block_class(_class, _reason)
