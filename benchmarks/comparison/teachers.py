"""The teachers: ensembles in PyTorch, trained once, their outputs kept.

Teachers train in bfloat16 on views of their own, new ones in every epoch, and
are never asked anything but the students' views and the splits. What they
answer is kept as float16 logits: the mean over members, and over mirrored
images where mirroring changes nothing, of their log probabilities.
"""

import hashlib
import json
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from comparison.data import Data, load
from comparison.views import Views, as_floats, batches_of

if TYPE_CHECKING:
    from comparison.teacher_nets import Member, Teacher

FOLDER = Path(__file__).parents[2] / "runs" / "comparison" / "teachers"
_BATCH = 500


def _teacher(data: str) -> "Teacher":
    """Returns how the teacher of a data set is made; needs torch."""
    from comparison.teacher_nets import TEACHERS

    return TEACHERS[data]


def teacher_hash(data: str) -> str:
    """Returns a hash of how the teacher of a data set is made."""
    teacher = _teacher(data)
    told = json.dumps([data, teacher.mirrored, [*map(str, teacher.members)]])
    return hashlib.sha256(told.encode()).hexdigest()[:8]


def train_teacher(data: str) -> None:
    """Trains the members that are missing; each is kept when it is done."""
    for index in range(len(_teacher(data).members)):
        _member(data, index)


@cache
def outputs_of_views(data: str, kind: str) -> np.ndarray:
    """Returns the teacher's logits for all views of the training examples.

    Args:
        data: Name of the data.
        kind: A key of `comparison.views.KINDS`.

    Returns:
        (views, rows, classes) float16.
    """
    path = _folder(data) / f"{kind}.npy"
    if not path.exists():
        views = Views(load(data).train.x, kind)
        found = [
            _logits(data, views.fresh(number)) for number in range(views.count)
        ]
        _keep(path, np.stack(found).astype(np.float16))
    return np.load(path)


def has_answered(data: str, split: str) -> bool:
    """Says whether the teacher's answers to a split are there."""
    return _split_path(data, split).exists()


def predictions_of_split(data: str, split: str) -> np.ndarray:
    """Returns the teacher's classes for the examples of a split, (rows,)."""
    path = _split_path(data, split)
    if not path.exists():
        _keep(path, _logits(data, getattr(load(data), split).x))
    return np.load(path).argmax(axis=-1)


def description(data: str) -> str:
    """Returns what the teacher is, in a sentence."""
    return _teacher(data).description


def _folder(data: str) -> Path:
    return FOLDER / f"{data}-{teacher_hash(data)}"


def _split_path(data: str, split: str) -> Path:
    return _folder(data) / f"split-{split}.npy"


def _keep(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial.npy")
    np.save(partial, values)
    partial.replace(path)


def _member(data: str, index: int) -> Any:
    """Returns a trained member, from its file if there is one."""
    import torch

    member = _teacher(data).members[index]
    torch.manual_seed(index)
    net = member.make().to(memory_format=torch.channels_last)
    path = _folder(data) / f"member-{index}.pt"
    if path.exists():
        net.load_state_dict(torch.load(path, weights_only=True))
        return net.eval()
    _train(net, member, load(data), index)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    torch.save(net.state_dict(), partial)
    partial.replace(path)
    return net.eval()


def _train(net: Any, member: "Member", data: Data, index: int) -> None:
    """Trains a member on labels: SGD on one cycle, or AdamW on a cosine."""
    import torch

    rows, seed = len(data.train.y), 1000 + index
    steps = member.epochs * (rows // member.batch_size)
    rate, decay = member.learning_rate, member.weight_decay
    if member.optimizer == "sgd":
        optimizer: Any = torch.optim.SGD(
            net.parameters(), rate, 0.9, weight_decay=decay, nesterov=True
        )
        schedule: Any = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, rate, total_steps=steps, pct_start=0.2
        )
    else:
        optimizer = torch.optim.AdamW(
            net.parameters(), rate, weight_decay=decay
        )
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    views = Views(data.train.x, member.augmentation, seed)
    started = time.monotonic()
    net.train()
    for epoch in range(member.epochs):
        view, total = views.fresh(epoch), 0.0
        for those in batches_of(rows, member.batch_size, seed, epoch):
            labels = torch.from_numpy(data.train.y[those])
            with torch.autocast("cpu", torch.bfloat16):
                logits = net(torch.from_numpy(as_floats(view[those])))
            loss = torch.nn.functional.cross_entropy(logits.float(), labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        print(
            f"teacher of {data.name}, member {index}, epoch {epoch + 1} of "
            f"{member.epochs}: loss {total * member.batch_size / rows:.4f}, "
            f"{time.monotonic() - started:.0f} s",
            flush=True,
        )


def _logits(data: str, x: np.ndarray) -> np.ndarray:
    """Returns the mean of the members' log probabilities, (rows, classes)."""
    import torch

    teacher = _teacher(data)
    nets = [_member(data, index) for index in range(len(teacher.members))]
    found = []
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for start in range(0, len(x), _BATCH):
            batch = torch.from_numpy(as_floats(x[start : start + _BATCH]))
            sides = [batch, batch.flip(2)] if teacher.mirrored else [batch]
            found.append(_mean_log_probabilities(nets, sides))
    return np.concatenate(found)


def _mean_log_probabilities(nets: Sequence[Any], sides: Sequence[Any]) -> Any:
    import torch

    voices = [
        net(side).float().log_softmax(-1) for net in nets for side in sides
    ]
    return torch.stack(voices).mean(0).numpy()
