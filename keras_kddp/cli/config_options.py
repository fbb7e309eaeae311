"""The options of a command from the fields of a configuration, and back."""

import argparse
from dataclasses import MISSING, Field, fields
from typing import Any

from keras_kddp.compression.choices import CONTROLS, NO_TEACHER
from keras_kddp.compression.config import (
    ALL_CONTROLS,
    CompressionConfig,
    Option,
    option_of,
)


def add_options(
    command: argparse.ArgumentParser, config: type[CompressionConfig]
) -> None:
    """Adds one option per field that has one, in their order.

    Args:
        command: The parser of a command.
        config: A configuration class.
    """
    for entry in fields(config):
        option = option_of(entry)
        if option is not None:
            _add_option(command, entry, option)


def _add_option(
    command: argparse.ArgumentParser, entry: "Field[Any]", option: Option
) -> None:
    """Adds the option of one field.

    What has no default is required. What is None by default stays out of the
    namespace, so that its help alone says what holds then.
    """
    default = entry.default
    if default is None:
        default = argparse.SUPPRESS
    elif isinstance(default, tuple):
        default = list(default)
    is_required = default is MISSING
    name = option.flag or entry.name
    command.add_argument(
        f"--{name.replace('_', '-')}",
        dest=entry.name,
        type=option.kind,
        choices=option.choices,
        nargs=option.nargs,
        required=is_required,
        default=None if is_required else default,
        help=option.help,
    )


def config_of(given: argparse.Namespace) -> CompressionConfig:
    """Returns the configuration that the words of a command ask for."""
    names = {entry.name for entry in fields(CompressionConfig)}
    values = {n: value for n, value in vars(given).items() if n in names}
    if ALL_CONTROLS in values["controls"]:
        values["controls"] = [
            name
            for name in CONTROLS
            # Without a teacher it is the control "same_size".
            if name != "same_size_labels" or values["teacher"] != NO_TEACHER
        ]
    return CompressionConfig(**values)
