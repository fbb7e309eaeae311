"""Names of nodes in a SavedModel, numbered in the order of the trace."""

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import keras

from keras_kddp import _compat


def user_named(model: keras.Model) -> frozenset[str]:
    """Returns the names of a model's layers that Keras did not make."""
    return frozenset(
        layer.name
        for layer in _compat.all_layers(model)
        if not _is_numbered(layer)
    )


def number_nodes(
    folder: Path, ends: Collection[str], layers: Collection[str]
) -> None:
    """Puts numbers before the names of nodes in a SavedModel's functions.

    The converter sorts operations that wait for the same ones by name, and
    their names hold the numbers that Keras gives to the layers of a process:
    `dense_10` comes before `dense_9`. The numbers sort by the names that
    users gave, and where Keras did, in the order of the trace.

    Args:
        folder: Of the SavedModel, which is changed in place.
        ends: Names of the signature's inputs, which stay.
        layers: What `user_named` returned.
    """
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    file = folder / "saved_model.pb"
    saved = SavedModel.FromString(file.read_bytes())
    for graph in saved.meta_graphs:
        for function in graph.graph_def.library.function:
            if "_traced_" not in function.signature.name:  # save and restore
                _number(function, ends, layers)
    file.write_bytes(saved.SerializeToString(deterministic=True))


def _number(
    function: Any, ends: Collection[str], layers: Collection[str]
) -> None:
    nodes = [node.name for node in function.node_def]
    counted: dict[str, str] = {}

    def counted_anew(part: str) -> str:
        plain = re.sub(r"(_\d+)+$", "", part)
        if re.sub(r"_\d+$", "", part) in layers or plain == part:
            return part
        return counted.setdefault(part, f"{plain}_{len(counted):06}")

    keys = {
        node: [counted_anew(part) for part in node.split("/")] for node in nodes
    }
    names = {
        node: f"n{number:06}/{node}"
        for number, node in enumerate(sorted(nodes, key=keys.__getitem__))
    }
    for number, argument in enumerate(function.signature.input_arg):
        if argument.name not in ends:
            names[argument.name] = f"a{number:06}"
            argument.name = names[argument.name]
    for node in function.node_def:
        node.name = names[node.name]
        node.input[:] = _renamed(node.input, names)
        if "_class" in node.attr:
            places = node.attr["_class"].list.s
            places[:] = [_beside(place, names) for place in places]
    for results in (function.ret, function.control_ret):
        for name, node in dict(results).items():
            (results[name],) = _renamed([node], names)


def _renamed(tensors: Iterable[str], names: Mapping[str, str]) -> list[str]:
    """Returns tensors, "node:output:0" or "^node" each, of renamed nodes."""
    found = []
    for tensor in tensors:
        waits = "^" if tensor.startswith("^") else ""
        node, colon, output = tensor.removeprefix("^").partition(":")
        found.append(f"{waits}{names.get(node, node)}{colon}{output}")
    return found


def _beside(place: bytes, names: Mapping[str, str]) -> bytes:
    """Returns "loc:@node", the place of a renamed node."""
    prefix, at, node = place.decode().partition("@")
    return f"{prefix}{at}{names.get(node, node)}".encode()


def _is_numbered(layer: Any) -> bool:
    automatic = re.escape(_compat.automatic_name(type(layer)))
    return re.fullmatch(rf"{automatic}(_\d+)?", layer.name) is not None
