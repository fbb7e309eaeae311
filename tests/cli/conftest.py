"""What all tests of the command share."""

import pytest

from keras_kddp.compression import training


@pytest.fixture(scope="package", autouse=True)
def without_xla():
    """Has short runs compile nothing, which would take most of their time."""
    real = training._compile

    def compile_plainly(trained, *arguments):
        real(trained, *arguments)
        trained.jit_compile = False

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "_compile", compile_plainly)
        yield
