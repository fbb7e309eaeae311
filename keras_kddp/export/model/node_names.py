"""Names in the functions of a SavedModel that say the order of the trace."""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any


def number_nodes(folder: Path, ends: Collection[str]) -> None:
    """Puts numbers before the names of nodes in a SavedModel's functions.

    The converter sorts operations that wait for the same ones by name, and
    their names hold the numbers that Keras gives to the layers of a process:
    `dense_10` comes before `dense_9`.

    Args:
        folder: Of the SavedModel, which is changed in place.
        ends: Names of the signature's inputs, which stay.
    """
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    file = folder / "saved_model.pb"
    saved = SavedModel.FromString(file.read_bytes())
    for graph in saved.meta_graphs:
        for function in graph.graph_def.library.function:
            if "_traced_" not in function.signature.name:  # save and restore
                _number(function, ends)
    file.write_bytes(saved.SerializeToString(deterministic=True))


def _number(function: Any, ends: Collection[str]) -> None:
    names = {
        node.name: f"n{number:06}/{node.name}"
        for number, node in enumerate(function.node_def)
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
