"""The nets whose averaged log probabilities are the teacher of a data set."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

_WAVES, _FREQUENCY = 8, 0.1


@dataclass(frozen=True)
class Member:
    """One net of an ensemble, and how it is trained on the labels.

    Attributes:
        make: Makes it; float32 (rows, ..., channels) to logits.
        epochs: Passes over the training examples, each a fresh view.
        learning_rate: The highest: where a cosine to 0 begins for AdamW, the
            top of one cycle for SGD.
        weight_decay: Of the optimizer.
        augmentation: A key of `comparison.views.KINDS`.
        batch_size: Examples per step.
        optimizer: `"adamw"`, or `"sgd"` with Nesterov's momentum of 0.9.
    """

    make: Callable[[], nn.Module]
    epochs: int
    learning_rate: float
    weight_decay: float
    augmentation: str
    batch_size: int
    optimizer: str = "adamw"

    def __str__(self) -> str:
        """Returns what the trained net follows from."""
        make: Any = self.make
        made = getattr(make, "func", make).__name__
        told = {**vars(self), "make": [made, getattr(make, "keywords", {})]}
        return json.dumps(told, sort_keys=True)


@dataclass(frozen=True)
class Teacher:
    """Nets whose log probabilities are averaged.

    Attributes:
        members: Each is trained alone. Those that are alike differ in their
            seeds: start, order and views.
        description: What they are, in words.
        mirrored: They are asked about mirror images too.
    """

    members: tuple[Member, ...]
    description: str
    mirrored: bool = False


class ChannelsFirst(nn.Module):
    """Moves the channels of (rows, ..., channels) to where torch has them."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.movedim(-1, 1)


class Residual(nn.Module):
    """Adds what two paths make of the same input.

    Args:
        path: The long one.
        shortcut: The short one; None: the input itself.
    """

    def __init__(
        self, path: nn.Module, shortcut: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.path = path
        self.shortcut = shortcut or nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.path(x) + self.shortcut(x)


class Waves(nn.Module):
    """Adds to each feature its sine and cosine at learned frequencies.

    Gorishniy et al. 2022 (arXiv 2203.05556): a net of numbers in tables sees
    small differences with it, as trees do.

    Args:
        inputs: Features of an example, of deviation 1.
    """

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.frequencies = nn.Parameter(
            _FREQUENCY * torch.randn(inputs, _WAVES)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        angles = (2 * torch.pi * x[..., None] * self.frequencies).flatten(1)
        return torch.cat([x, angles.sin(), angles.cos()], dim=1)


def wide_net(
    inputs: int, classes: int, *, units: int, layers: int, dropout: float
) -> nn.Module:
    """Returns a dense net with BatchNormalization: (rows, inputs) to logits.

    Args:
        inputs: Features of an example.
        classes: Number of logits.
        units: Width of each hidden layer.
        layers: Hidden layers.
        dropout: Share of units that are left out behind each.
    """
    parts: list[nn.Module] = []
    for width in (inputs, *[units] * (layers - 1)):
        parts += [
            nn.Linear(width, units),
            nn.BatchNorm1d(units),
            nn.ReLU(),
            nn.Dropout(dropout),
        ]
    return nn.Sequential(*parts, nn.Linear(units, classes))


def table_net(inputs: int, classes: int) -> nn.Module:
    """Returns a wide net that sees small differences: (rows, inputs).

    Args:
        inputs: Features of an example, of deviation 1.
        classes: Number of logits.
    """
    seen = inputs * (1 + 2 * _WAVES)
    wide = wide_net(seen, classes, units=256, layers=3, dropout=0.1)
    return nn.Sequential(Waves(inputs), wide)


def watch_net(filters: int = 32, dropout: float = 0.3) -> nn.Module:
    """Returns a residual net in time: (rows, 100, 6) to 7 logits.

    Args:
        filters: Of the stem and the first block; the others have twice as
            many.
        dropout: Share that is left out before the logits; a third of it
            within the blocks.
    """
    wide = 2 * filters
    blocks: list[nn.Module] = []
    for given, taken in ((filters, filters), (filters, wide), (wide, wide)):
        path = nn.Sequential(
            *_in_time(given, taken, 7, 2),
            nn.ReLU(),
            nn.Dropout(dropout / 3),
            *_in_time(taken, taken, 3),
        )
        shortcut = nn.Sequential(*_in_time(given, taken, 1, 2))
        blocks += [Residual(path, shortcut), nn.ReLU()]
    return nn.Sequential(
        ChannelsFirst(),
        *_in_time(6, filters, 7),
        nn.ReLU(),
        *blocks,
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(wide, 7),
    )


def _in_time(
    given: int, taken: int, size: int, stride: int = 1
) -> tuple[nn.Module, nn.Module]:
    convolution = nn.Conv1d(
        given, taken, size, stride, padding=size // 2, bias=False
    )
    return convolution, nn.BatchNorm1d(taken)


def fashion_net(width: int = 32) -> nn.Module:
    """Returns a residual net of nine layers: (rows, 28, 28, 1) to 10 logits.

    Args:
        width: Filters of the first layer; the last ones have eight times as
            many.
    """
    parts: list[nn.Module] = [ChannelsFirst(), _in_space(1, width)]
    for level in (2, 4, 8):
        filters = level * width
        twice = nn.Sequential(
            _in_space(filters, filters), _in_space(filters, filters)
        )
        parts += [_in_space(filters // 2, filters), nn.MaxPool2d(2)]
        parts.append(Residual(twice))
    return nn.Sequential(
        *parts,
        nn.AdaptiveMaxPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(8 * width, 10),
    )


def _in_space(given: int, taken: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(given, taken, 3, padding=1, bias=False),
        nn.BatchNorm2d(taken),
        nn.ReLU(),
    )


_DIGITS = Member(
    partial(wide_net, 64, 10, units=512, layers=2, dropout=0.3),
    epochs=40,
    learning_rate=2e-3,
    weight_decay=1e-2,
    augmentation="jitter",
    batch_size=32,
)
_FASHION = Member(
    fashion_net,
    epochs=24,
    learning_rate=0.1,
    weight_decay=5e-4,
    augmentation="flip_shift_erase",
    batch_size=256,
    optimizer="sgd",
)
_WATCH = Member(
    watch_net,
    epochs=20,
    learning_rate=3e-3,
    weight_decay=1e-2,
    augmentation="rescale_jitter",
    batch_size=64,
)
_DIAMONDS = Member(
    partial(table_net, 22, 5),
    epochs=30,
    learning_rate=3e-3,
    weight_decay=1e-2,
    augmentation="none",
    batch_size=256,
)

TEACHERS: dict[str, Teacher] = {
    "digits": Teacher(
        5 * (_DIGITS,), "five nets of two hidden layers of 512 units"
    ),
    "fashion": Teacher(
        (_FASHION,),
        "a residual net of eight convolutions (32 to 256 channels), trained "
        "on flips, shifts and erasing, and asked about each image and its "
        "mirror image",
        mirrored=True,
    ),
    "watch": Teacher(5 * (_WATCH,), "five residual nets in time"),
    "diamonds": Teacher(
        5 * (_DIAMONDS,),
        "five nets of three hidden layers of 256 units, behind learned sines "
        "and cosines of each feature",
    ),
}
"""Name of the data -> its teacher."""
