"""What all tests of the command share."""

import pytest
from compiled_runs import compiled_with


@pytest.fixture(scope="package", autouse=True)
def without_xla():
    """Has short runs compile nothing, which would take most of their time."""
    with compiled_with(jit_compile=False):
        yield
