"""What a run is said to do whose checkpoints are damaged."""

import keras
import numpy as np
import pytest
from resumed_runs import EndedError

import keras_kddp as kddp
from keras_kddp.atomic_files import parts_of
from keras_kddp.compression import compress as compress_module
from keras_kddp.distillation.checkpoints import resumable

X = np.random.default_rng(0).normal(size=(32, 6)).astype("float32")
Y = X[:, :3].argmax(axis=-1)


def dense():
    return keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(8, "relu", name="hidden"),
            keras.layers.Dense(3, name="logits"),
        ],
        name="mlp",
    )


def compressed(run_dir, **options):
    keras.backend.clear_session()
    keras.utils.set_random_seed(7)
    teacher, student = dense(), dense()
    return kddp.compress(
        teacher,
        student,
        (X, Y),
        (X[:9], Y[:9]),
        epochs=3,
        run_dir=run_dir,
        **options,
    )


@pytest.mark.filterwarnings("ignore::UserWarning")  # of a teacher at chance
def test_only_what_helps_is_advised(tmp_path, monkeypatch):
    monkeypatch.setattr(resumable, "SECONDS_BETWEEN", 0.0)

    def end(*_, **__):
        raise EndedError

    with monkeypatch.context() as patch:
        patch.setattr(compress_module, "concluded", end)
        with pytest.raises(EndedError) as ended:
            compressed(tmp_path / "run")
    assert "Go on with: keras_kddp.compress" in ended.value.__notes__[0]
    damaged = list(parts_of(tmp_path / "run").rglob("*.checkpoint"))
    for path in damaged:
        path.write_bytes(b"torn")

    with pytest.raises(ValueError, match="only damaged ones") as refused:
        compressed(tmp_path / "run", resume=True)
    assert refused.value.__notes__ == [
        "Begin the whole run anew with overwrite=True (--overwrite), or remove "
        "those alone; what else is trained is kept for: "
        "keras_kddp.compress(..., resume=True)"
    ]
    for path in damaged:
        path.unlink()
    compressed(tmp_path / "run", resume=True)
