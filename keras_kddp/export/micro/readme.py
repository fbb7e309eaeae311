"""What the README of a microcontroller bundle says."""

from keras_kddp.export.micro.sources import (
    Bundle,
    printable,
    resolver_method,
)
from keras_kddp.export.micro.templates import README
from keras_kddp.export.tflite.artifact import TFLiteArtifact


def readme_of(bundle: Bundle, artifact: TFLiteArtifact, measured: int) -> str:
    """Returns the text, in Markdown.

    Args:
        bundle: What the sources are made from.
        artifact: The file in it.
        measured: Bytes of the smallest arena that it ran in.
    """
    ends = "\n".join(
        f"| {role} {index} | `{printable(part.name)}` | {part.dtype} | "
        f"{' x '.join(map(str, part.shape))} | "
        f"{'-' if part.scale is None else f'{part.scale:.8g}'} | "
        f"{'-' if part.scale is None else part.zero_point} |"
        for role, parts in (
            ("input", bundle.inputs),
            ("output", bundle.outputs),
        )
        for index, part in enumerate(parts)
    )
    operations = ", ".join(
        f"{name} (`{resolver_method(name)}`)" for name in bundle.operations
    )
    return README.format(
        name=bundle.name,
        NAME=bundle.name.upper(),
        quantization=artifact.quantization,
        bytes=artifact.num_bytes,
        arena=bundle.arena_bytes,
        measured=measured,
        operations=operations,
        ends=ends,
        count=len(bundle.golden.inputs[0]),
    )
