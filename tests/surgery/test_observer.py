"""Tensors inside a model, computed for inputs in the structure it takes."""

import keras
import numpy as np
import pytest

from keras_kddp.surgery import ChannelGraph
from keras_kddp.surgery.observer import Observer


@pytest.mark.parametrize(
    ("alone", "given"),
    [
        (lambda x: x, lambda rows: rows),
        (lambda x: [x], lambda rows: rows),
        (lambda x: [x], lambda rows: [rows]),
        (lambda x: {"image": x}, lambda rows: {"image": rows}),
    ],
    ids=["tensor", "list taking an array", "list", "dict"],
)
def test_one_input_is_given_as_the_model_takes_it(alone, given):
    tensor = keras.Input((2,), name="image")
    model = keras.Model(alone(tensor), keras.layers.ReLU()(tensor))
    observer = Observer(ChannelGraph(model), model.outputs)
    (seen,) = observer(given(np.array([[-1.0, 2.0]])))
    assert keras.ops.convert_to_numpy(seen).tolist() == [[0, 2]]
