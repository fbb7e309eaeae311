"""Norms of the weights that units are read through."""

import numpy as np
import pytest
from helpers import float64, to_numpy
from small_models import (
    dense_model,
    residual_model,
)

from keras_kddp.surgery import (
    ChannelGraph,
)
from keras_kddp.surgery.norms import outgoing_norms


@pytest.fixture(autouse=True)
def in_float64():
    with float64():
        yield


def test_outgoing_norms_count_every_reader_of_a_group():
    norms = outgoing_norms(ChannelGraph(dense_model()))
    np.testing.assert_allclose(norms["fc"], [10, 20, 30])
    np.testing.assert_allclose(norms["head"], [0])
    model = residual_model()
    # A unit of `first` is read by `second` and, through the sum, by `inner`.
    readers = [to_numpy(model.get_layer(n).kernel) for n in ("second", "inner")]
    squares = sum((kernel**2).sum(axis=1) for kernel in readers)
    norms = outgoing_norms(ChannelGraph(model))
    np.testing.assert_allclose(norms["first"], np.sqrt(squares))
    np.testing.assert_allclose(norms["second"], np.sqrt(squares))
