"""What the methods are called in tables and pictures."""

OURS = "kddp"

LABELS = {
    "kddp": "dynamic pruning (KDDP)",
    "pruned_labels": "dynamic pruning, labels only",
    "same_size_kd": "same size, KD",
    "same_size_labels": "same size, labels",
    "same_size_labels_longer": "same size, labels, as costly as KDDP",
    "random": "random cut",
    "magnitude": "magnitude cut",
    "contribution": "contribution cut",
    "taylor": "Taylor cut",
    "slimming": "network slimming (BatchNormalization)",
    "tp_group_norm": "Torch-Pruning, group norm",
    "tp_taylor": "Torch-Pruning, Taylor",
    "labels": "unpruned, labels",
    "kd": "unpruned, KD",
    "torch_labels": "unpruned PyTorch twin, labels",
}
"""Method -> its name, in the order of the rows."""

UNPRUNED = ("labels", "kd", "torch_labels")
"""Those of the whole student: larger than the others."""

CURVES = ("kddp", "magnitude", "same_size_kd", "same_size_labels")
"""Those that are run at all sizes of a student."""


def label(method: str) -> str:
    """Returns the name of a method; of an unknown one, itself."""
    return LABELS.get(method, method)


def in_order(methods: set[str]) -> list[str]:
    """Returns methods in the order of the rows, unknown ones at the end."""
    known = [method for method in LABELS if method in methods]
    return known + sorted(methods - LABELS.keys())
