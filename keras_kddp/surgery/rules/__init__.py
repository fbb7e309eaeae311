"""What each Keras layer class does to channels, family by family."""

from keras_kddp.surgery.rules import (  # noqa: F401  (they register rules)
    blocking,
    channelwise,
    joining,
    mixing,
    positions,
)
