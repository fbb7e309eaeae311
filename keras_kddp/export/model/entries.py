"""What a file says about itself: given by the user, and by the export."""

import json
from collections.abc import Mapping
from typing import Any


def merged(
    argument: str, given: Mapping[str, Any] | None, own: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns given entries and those of the export, as JSON can hold them.

    Args:
        argument: What errors call the given ones.
        given: By name; None: no others.
        own: Those that only the export may write.

    Raises:
        ValueError: If JSON cannot hold them, or names are taken.
    """
    try:
        entries = dict(given or {})
        json.dumps(entries, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"`{argument}` must be a dict that JSON can hold. Received: "
            f"{given!r} ({error}). Use text, numbers, lists and dicts."
        ) from error
    if not all(isinstance(name, str) for name in entries):
        raise ValueError(
            f"`{argument}` must have texts for names. Received: "
            f"{list(entries)}. Put them in quotes."
        )
    taken = sorted(set(entries) & set(own))
    if taken:
        raise ValueError(
            f"`{argument}` must leave {sorted(own)} to the export. Received: "
            f"{taken}. Use other names."
        )
    return {**entries, **own}
