"""The command line: `kddp`."""

from keras_kddp.cli.commands import main

__all__ = ["main"]
