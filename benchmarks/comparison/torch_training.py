"""Training a PyTorch twin as a Keras student is trained under a teacher."""

import itertools
import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from comparison.twins import Twin
from comparison.views import as_floats

Batch = tuple[np.ndarray, np.ndarray, np.ndarray | None]
"""Examples in float32, classes, and the teacher's logits of them."""

Feed = Callable[[int], Iterator[Batch]]
"""Epoch -> its batches."""

_BETAS = (0.9, 0.999)
_EPSILON = 1e-7
_ROWS = 1000


def train_twin(
    net: Twin,
    feed: Feed,
    epochs: int,
    *,
    steps_per_epoch: int,
    learning_rate: float,
    weight_decay: float,
    temperature: float,
    student_loss_weight: float,
    precision: str,
    regularize: Callable[[int], None] | None = None,
    after_epoch: Callable[[int, torch.optim.Optimizer], None] | None = None,
) -> None:
    """Trains a twin with AdamW under a cosine, as Keras does.

    Args:
        net: Trained in place.
        feed: Gives the batches of each epoch.
        epochs: So many.
        steps_per_epoch: Batches of each epoch.
        learning_rate: At the first step; 0 is reached after the last.
        weight_decay: Of all weights, as Keras' AdamW has it.
        temperature: Of the soft targets.
        student_loss_weight: Share of the labels' loss.
        precision: "float32" or "mixed_bfloat16".
        regularize: Called with the epoch when the gradients of a step are
            known, which it may change.
        after_epoch: Called with the epoch and the optimizer when its steps
            are done.
    """
    torch.set_flush_denormal(True)  # as TensorFlow does: they are slow
    total = epochs * steps_per_epoch
    optimizer = torch.optim.AdamW(
        net.parameters(), betas=_BETAS, weight_decay=weight_decay, fused=True
    )
    for epoch in range(epochs):
        net.train()
        batches = itertools.islice(feed(epoch), steps_per_epoch)
        for step, batch in enumerate(batches, epoch * steps_per_epoch):
            optimizer.zero_grad()
            loss_of(
                net, batch, temperature, student_loss_weight, precision
            ).backward()
            if regularize is not None:
                regularize(epoch)
            _set_step(optimizer, step, learning_rate, total)
            optimizer.step()
        if after_epoch is not None:
            after_epoch(epoch, optimizer)


def loss_of(
    net: Twin,
    batch: Batch,
    temperature: float,
    student_loss_weight: float,
    precision: str,
) -> Tensor:
    """Returns the loss of a batch, as `keras_kddp.Distiller` has it.

    Args:
        net: The student.
        batch: With the teacher's logits where the labels are not all.
        temperature: T of the soft targets; their loss has the factor T^2.
        student_loss_weight: Share of the labels' loss.
        precision: "float32" or "mixed_bfloat16".

    Raises:
        ValueError: If soft targets have a share, but there are none.
    """
    x, y, teacher_logits = batch
    logits = _logits(net, x, precision)
    hard = nn.functional.cross_entropy(logits, torch.from_numpy(y).long())
    if student_loss_weight == 1:
        return hard
    if teacher_logits is None:
        raise ValueError(
            "`student_loss_weight` has to be 1 without a teacher's logits. "
            f"Received: student_loss_weight={student_loss_weight}."
        )
    log_p, log_q = (
        nn.functional.log_softmax(values / temperature, dim=-1)
        for values in (torch.from_numpy(teacher_logits).float(), logits)
    )
    soft = temperature**2 * nn.functional.kl_div(
        log_q, log_p, reduction="batchmean", log_target=True
    )
    return student_loss_weight * hard + (1 - student_loss_weight) * soft


def answers(net: Twin, x: np.ndarray, precision: str) -> np.ndarray:
    """Returns the predicted class of each example, (rows,) in int64.

    Args:
        net: Left in its mode.
        x: (rows, ..., channels), as they are stored or float32.
        precision: "float32" or "mixed_bfloat16".
    """
    was_training = net.training
    net.eval()
    with torch.inference_mode():
        found = [
            _logits(net, as_floats(x[start : start + _ROWS]), precision)
            .argmax(dim=-1)
            .numpy()
            for start in range(0, len(x), _ROWS)
        ]
    net.train(was_training)
    return np.concatenate(found)


def _logits(net: Twin, x: np.ndarray, precision: str) -> Tensor:
    """Returns float32; all but the last part may compute in bfloat16."""
    is_mixed = precision == "mixed_bfloat16"
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=is_mixed):
        return net(torch.from_numpy(x))


def _set_step(
    optimizer: torch.optim.Optimizer,
    step: int,
    learning_rate: float,
    total: int,
) -> None:
    """Sets the rate and the epsilon of a step, which counts from 0.

    Keras adds epsilon to the root of the second moment before its bias is
    corrected (the "epsilon hat" of Kingma and Ba 2014, section 2, arXiv
    1412.6980), PyTorch afterwards.
    """
    group = optimizer.param_groups[0]
    group["lr"] = learning_rate * (1 + math.cos(math.pi * step / total)) / 2
    group["eps"] = _EPSILON / math.sqrt(1 - _BETAS[1] ** (step + 1))
