"""The teachers of the comparison take what its students take."""

import pytest
from comparison.data import load
from comparison.views import KINDS, as_floats


@pytest.mark.slow
@pytest.mark.parametrize("name", ["digits", "fashion", "watch", "diamonds"])
def test_every_member_of_a_teacher_answers_its_data_and_learns(name):
    import torch
    from comparison.teacher_nets import TEACHERS

    data = load(name)
    x = torch.from_numpy(as_floats(data.train.x[:8]))
    y = torch.from_numpy(data.train.y[:8])

    for member in set(TEACHERS[name].members):
        net = member.make()
        logits = net(x)
        torch.nn.functional.cross_entropy(logits, y).backward()

        assert logits.shape == (8, data.classes)
        assert all(weight.grad is not None for weight in net.parameters())
        assert member.augmentation in KINDS
        assert member.optimizer in ("adamw", "sgd")


@pytest.mark.slow
def test_a_net_is_made_anew_for_each_member():
    from comparison.teacher_nets import TEACHERS

    member = TEACHERS["digits"].members[0]

    assert member.make() is not member.make()
