"""What each Keras layer class does to channels, family by family."""

from keras_kddp.surgery.rules import (  # noqa: F401  (they register rules)
    blocking,
    channel_weights,
    channelwise,
    joining,
    masking,
    mixing,
    noise,
    positions,
)
