"""The accuracies of a comparison count what Keras' own accuracy counts."""

import keras
import numpy as np
import pytest

from keras_kddp.compression.training import accuracy
from keras_kddp.data.splits import Split

WORDS = np.array([[3, 1, 2, 0], [2, 0, 0, 0]] * 150)  # more than one batch
VALID = WORDS != 0


def tagger(structure, *, mask_zero=True):
    """Returns a model of the scores of words and, perhaps, of whole texts."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,), dtype="int32")
    words = keras.layers.Embedding(4, 5, mask_zero=mask_zero)(inputs)
    tags = keras.layers.Dense(3, name="tags")(words)
    whole = keras.layers.GlobalAveragePooling1D()(words)
    whole = keras.layers.Dense(3, name="whole")(whole)
    return keras.Model(inputs, structure(tags, whole))


@pytest.mark.parametrize("mask_zero", [True, False])
@pytest.mark.parametrize(
    ("structure", "share"),  # of right answers: 4 of 8 steps are padding
    [
        (lambda tags, whole: [tags], (1.0, 4 / 8)),
        (lambda tags, whole: [whole], (2 / 3, 2 / 3)),
        (lambda tags, whole: [tags, whole], (5 / 6, 7 / 12)),
        (lambda tags, whole: {"w": whole, "tags": tags}, (5 / 6, 7 / 12)),
    ],
    ids=["words", "texts", "both in a list", "both in a dict"],
)
def test_steps_that_keras_masks_count_in_no_accuracy(
    structure, share, mask_zero
):
    model = tagger(structure, mask_zero=mask_zero)
    outputs = model.predict(WORDS, verbose=0)
    classes = keras.tree.map_structure(lambda a: a.argmax(axis=-1), outputs)
    # Right at words, wrong at padding, and wrong in a third of the texts.
    labels = keras.tree.map_structure(
        lambda a: (
            np.where(VALID, a, (a + 1) % 3)
            if a.ndim == 2
            else (a + (np.arange(300) % 3 == 0)) % 3
        ),
        classes,
    )
    metrics = keras.tree.map_structure(lambda _: "accuracy", model.output)
    model.compile(loss="sparse_categorical_crossentropy", metrics=metrics)
    logs = model.evaluate(WORDS, labels, verbose=0, return_dict=True)

    found = accuracy(model, Split(WORDS, labels))

    by_keras = [value for name, value in logs.items() if "accuracy" in name]
    assert found == pytest.approx(np.mean(by_keras), rel=1e-6)
    assert found == pytest.approx(share[0 if mask_zero else 1], rel=1e-12)


def test_padding_alone_is_no_right_answer():
    model = tagger(lambda tags, whole: tags)

    assert accuracy(model, Split(0 * WORDS, 0 * WORDS)) == 0.0


def test_texts_have_an_accuracy_too():
    vectorize = keras.layers.TextVectorization(
        vocabulary=["a", "b"], output_sequence_length=2
    )
    inputs = keras.Input((1,), dtype="string")
    scores = keras.layers.Embedding(4, 3, mask_zero=True)(vectorize(inputs))
    model = keras.Model(inputs, scores)
    texts = np.array([["a b"], ["b"]], dtype=object)
    labels = np.array(model(keras.ops.convert_to_tensor(texts)))
    labels = labels.argmax(axis=-1)
    labels[1, 1] += 1  # padding

    assert accuracy(model, Split(texts, labels)) == 1.0
