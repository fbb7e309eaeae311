"""Teach the surgeon a layer of your own, and prune through it.

python examples/own_layer_rule.py
"""

import keras
import numpy as np

import keras_kddp as kddp
from keras_kddp.surgery import Rule, register_rule


@keras.saving.register_keras_serializable(package="examples")
class Scale(keras.layers.Layer):
    """A factor for each channel."""

    def build(self, input_shape):
        self.factor = self.add_weight(
            name="factor", shape=(input_shape[-1],), initializer="ones"
        )

    def call(self, inputs):
        return inputs * self.factor


def make_model() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(32, activation="relu", name="hidden"),
            Scale(name="scale"),
            keras.layers.Dense(2, name="logits"),
        ]
    )


print(kddp.explain(make_model()))  # `scale` lets nothing through: no rule


@register_rule(Scale)
class ScaleRule(Rule):
    """Each channel stays where it is, and has an entry of `factor`."""

    channelwise = True

    def flow(self, call):
        call.slice("factor", 0, call.inputs[0])
        return call.inputs[0]


model = make_model()
print(kddp.explain(model))  # now the units of `hidden` can go

x = np.random.default_rng(0).normal(size=(4, 8)).astype("float32")
hidden, scale, logits = (
    model.get_layer(n) for n in ("hidden", "scale", "logits")
)
activity = scale(hidden(x)).numpy()
activity[:, [3, 17]] = 0  # what removal has to equal
expected = logits(activity)

smaller = kddp.remove_units(model, {"hidden": [3, 17]})
print("units", smaller.get_layer("hidden").units)
print("factors", smaller.get_layer("scale").factor.shape)
print("largest difference", float(np.abs(smaller(x) - expected).max()))
