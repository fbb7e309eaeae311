"""A run of the comparison, for tests that need no training."""

from comparison.cells import Spec

SPEC = Spec(
    data="digits",
    student="mlp",
    method="kd",
    length="short",
    epochs=8,
    size=None,
    seed=0,
    recipe={"learning_rate": 0.001},
    options={"temperature": 1.0},
    teacher="abc",
    precision="float32",
    backend="tensorflow",
)
