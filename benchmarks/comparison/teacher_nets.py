"""The members of the teachers: PyTorch networks, and how each is trained."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Member:
    """One network of an ensemble.

    Attributes:
        make: Makes it: float32 (rows, ..., channels) to logits.
        epochs: Passes over the training examples.
        learning_rate: The highest of one cycle, or the first of a cosine.
        weight_decay: Of all weights.
        augmentation: A key of `comparison.views.KINDS`; new views each epoch.
        batch_size: Examples per step.
        optimizer: `"sgd"` with Nesterov's momentum on one cycle, or `"adamw"`
            on a cosine.
    """

    make: Callable[[], Any]
    epochs: int
    learning_rate: float
    weight_decay: float
    augmentation: str
    batch_size: int
    optimizer: str = "sgd"

    def __str__(self) -> str:
        """Returns what it follows from."""
        told = {**vars(self), "make": self.make.__name__}
        return str(sorted(told.items()))


@dataclass(frozen=True)
class Teacher:
    """An ensemble.

    Attributes:
        members: Its networks.
        description: What it is, in words.
        mirrored: It is asked about mirrored images too.
    """

    members: tuple[Member, ...]
    description: str
    mirrored: bool = False


def fashion_net() -> Any:
    """Returns a residual network for images: (rows, 28, 28, 1) to 10 logits.

    Eight 3x3 convolutions of 32 to 256 channels with BatchNormalization, in
    three residual blocks (He et al. 2015, arXiv 1512.03385).
    """
    import torch
    from torch import nn

    def convolved(channels: int, filters: int) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(channels, filters, 3, padding=1, bias=False),
            nn.BatchNorm2d(filters),
            nn.ReLU(),
        )

    class Residual(nn.Module):
        def __init__(self, channels: int) -> None:
            super().__init__()
            self.m = nn.Sequential(
                convolved(channels, channels), convolved(channels, channels)
            )

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.m(x)

    class ChannelsFirst(nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            # Channels last stay so in memory: a view, no copy.
            return super().forward(x.permute(0, 3, 1, 2))

    w = 32
    return ChannelsFirst(
        convolved(1, w),
        convolved(w, 2 * w),
        nn.MaxPool2d(2),
        Residual(2 * w),
        convolved(2 * w, 4 * w),
        nn.MaxPool2d(2),
        Residual(4 * w),
        convolved(4 * w, 8 * w),
        nn.MaxPool2d(2),
        Residual(8 * w),
        nn.AdaptiveMaxPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(8 * w, 10),
    )


_FASHION = Member(fashion_net, 24, 0.1, 5e-4, "flip_shift_erase", 256)

TEACHERS: dict[str, Teacher] = {
    "fashion": Teacher(
        (_FASHION,),
        "a residual network of eight convolutions (32 to 256 channels, "
        "BatchNormalization), trained on flips, shifts and erasing, and asked "
        "about each image and its mirror image",
        mirrored=True,
    ),
}
"""Name of the data -> its teacher."""
