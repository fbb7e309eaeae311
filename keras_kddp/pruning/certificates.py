"""What left a student, and the evidence on which it could."""

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from keras_kddp.pruning.activity import UnitActivity
from keras_kddp.surgery.activity_bounds import activity_bounds
from keras_kddp.surgery.folding import fold_constants
from keras_kddp.surgery.graph import ChannelGraph
from keras_kddp.surgery.norms import outgoing_norms
from keras_kddp.surgery.rule import Precision

PROVABLY_DEAD = "provably dead"
OBSERVED_DEAD = "observed dead"
CONSTANT = "constant"
NEGLIGIBLE = "negligible"

_EXACT = "exact"
_INEXACT = {Precision.NEARLY: "nearly", Precision.ON_AVERAGE: "in expectation"}

# With fewer examples whatever varies may look constant.
FEWEST_FOR_CONSTANT = 32


@dataclass(frozen=True)
class Certificate:
    """The evidence on which one unit was removed.

    Attributes:
        layer: Name of its layer.
        unit: Its index in the layer as it was before the removal.
        kind: `"provably dead"`: no input within the declared range makes it
            fire (interval bounds); `"observed dead"`: it never fired on the
            examples; `"constant"`: it had the same value on all of them, which
            was folded into the biases behind it; `"negligible"`: it fired, and
            contributed little.
        examples: Number of examples it was observed on.
        firing_rate_bound: Where it never fired on N examples, 3 / N: below it
            lies the share of examples that fire it, with 95 % confidence if
            they were drawn at random (rule of three; Hanley & Lippman-Hand
            1983, doi 10.1001/jama.1983.03330370053031). 0 where that is
            proved, None where it fired.
        value: The constant that was folded; None otherwise.
        contribution: `mean |a| * ||outgoing weights||`, as a share of the
            layer's largest, in [0, 1].
        in_training: How what took its place equals the unit held at its value
            (0 for None). At inference it is exact. In training: `"exact"`;
            `"in expectation"`, over the noise between it and the layer that
            reads it (Dropout, GaussianNoise), before that layer's activation;
            `"nearly"`: a BatchNormalization there has its moving mean within
            1/20 of a standard deviation of it.
    """

    layer: str
    unit: int
    kind: str
    examples: int
    firing_rate_bound: float | None
    value: float | None
    contribution: float
    in_training: str = _EXACT

    def as_dict(self) -> dict[str, Any]:
        """Returns the fields by name, for JSON."""
        return asdict(self)


def constant_units(
    activity: Mapping[str, UnitActivity],
) -> dict[str, dict[int, float]]:
    """Returns the units that have one value, not 0, on all examples.

    Args:
        activity: Layer name -> statistics.

    Returns:
        Layer name -> unit -> the value; none where fewer than 32 examples
        were observed.
    """
    found: dict[str, dict[int, float]] = {}
    for name, statistics in activity.items():
        if statistics.examples < FEWEST_FOR_CONSTANT:
            continue
        low = statistics.minimum
        is_constant = (low == statistics.maximum) & (low != 0)
        if is_constant.any():
            units = np.flatnonzero(is_constant).tolist()
            found[name] = {unit: float(low[unit]) for unit in units}
    return found


def certify(
    graph: ChannelGraph,
    units: Mapping[str, Iterable[int]],
    activity: Mapping[str, UnitActivity],
    constants: Mapping[str, Mapping[int, float]],
    input_range: tuple[float, float] | None = None,
) -> tuple[Certificate, ...]:
    """Returns the evidence for each unit that leaves.

    Args:
        graph: The channels of the model that they leave.
        units: Layer name -> indices of the units.
        activity: Layer name -> statistics at the model's present weights.
        constants: Layer name -> unit -> the value that was folded.
        input_range: What all inputs are declared to lie between; None: no
            unit is proved dead.
    """
    bounds = {} if input_range is None else activity_bounds(graph, input_range)
    norms = outgoing_norms(graph)
    groups = {
        name: graph.group_numbers[graph.units[name][sorted(indices)]].tolist()
        for name, indices in units.items()
    }
    folding = fold_constants(
        graph, {*itertools.chain(*groups.values())}, constants, training=True
    )
    inexact = {group: _INEXACT[x] for group, x in folding.precisions.items()}
    certificates = []
    for name, indices in units.items():
        seen = activity[name]
        sent = seen.mean_abs * norms[name]
        shares = sent / (sent.max() or 1.0)
        dead = np.zeros(len(sent), bool)
        if name in bounds:
            dead = (bounds[name].low == 0) & (bounds[name].high == 0)
        for unit, group in zip(sorted(indices), groups[name], strict=True):
            value = constants.get(name, {}).get(unit)
            kind, rate = _kind_and_rate(
                is_proved_dead=bool(dead[unit]),
                is_live=bool(seen.live[unit]),
                is_constant=value is not None,
                examples=seen.examples,
            )
            certificates.append(
                Certificate(
                    layer=name,
                    unit=int(unit),
                    kind=kind,
                    examples=seen.examples,
                    firing_rate_bound=rate,
                    value=value,
                    contribution=float(shares[unit]),
                    in_training=inexact.get(group, _EXACT),
                )
            )
    return tuple(certificates)


def _kind_and_rate(
    *, is_proved_dead: bool, is_live: bool, is_constant: bool, examples: int
) -> tuple[str, float | None]:
    """Returns the kind of the evidence, and the bound on the firing rate."""
    if is_proved_dead:
        return PROVABLY_DEAD, 0.0
    if not is_live:
        return OBSERVED_DEAD, 3 / max(examples, 3)
    return (CONSTANT if is_constant else NEGLIGIBLE), None


def summarize_evidence(certificates: Iterable[Certificate]) -> str:
    """Returns how many units left on what evidence, in one line."""
    certificates = list(certificates)
    counts = Counter(certificate.kind for certificate in certificates)
    parts = []
    for kind in (PROVABLY_DEAD, OBSERVED_DEAD, CONSTANT, NEGLIGIBLE):
        if not counts[kind]:
            continue
        own = [c for c in certificates if c.kind == kind]
        note = ""
        if kind == OBSERVED_DEAD:
            rate = max(c.firing_rate_bound or 0 for c in own)
            note = f" (fire on < {rate:.2%} of examples, 95 % confidence)"
        elif kind == NEGLIGIBLE:
            largest = max(c.contribution for c in own)
            note = f" (contribute <= {largest:.2%} of the largest)"
        parts.append(f"{counts[kind]} {kind}{note}")
    evidence = ", ".join(parts)
    held = Counter(c.in_training for c in certificates)
    inexact = [f"{held[x]} {x}" for x in _INEXACT.values() if held[x]]
    if not inexact:
        return evidence
    return f"{evidence}; equal in training: {', '.join(inexact)}"


class Removal(NamedTuple):
    """One removal during `fit`.

    Attributes:
        epoch: The epoch, from 0, that began with it.
        units_before: Layer name -> units before.
        units_after: Layer name -> units after.
        parameters_before: Weights of the student before.
        parameters_after: Weights of the student after.
        certificates: The evidence for each unit that left.
    """

    epoch: int
    units_before: dict[str, int]
    units_after: dict[str, int]
    parameters_before: int
    parameters_after: int
    certificates: tuple[Certificate, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Returns the fields by name, for JSON."""
        certificates = [x.as_dict() for x in self.certificates]
        return {**self._asdict(), "certificates": certificates}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> "Removal":
        """Returns the removal from `as_dict()`."""
        found = tuple(Certificate(**x) for x in stored["certificates"])
        return cls(**{**stored, "certificates": found})

    def __str__(self) -> str:
        """Returns one line for people."""
        layers = ", ".join(
            f"{name} {before} -> {self.units_after[name]}"
            for name, before in self.units_before.items()
            if before != self.units_after[name]
        )
        evidence = summarize_evidence(self.certificates)
        return (
            f"Epoch {self.epoch + 1}: removed units ({layers}), parameters "
            f"{self.parameters_before:,} -> {self.parameters_after:,}"
            + (f"; {evidence}" if evidence else "")
        )
