"""The program of a worker: one JSON object per line in, one per line out.

    python worker_main.py HANDLER

`HANDLER` is a script with a function `answer(**request)` that returns what the
reply holds beside `"error"`: null, or the text of what it raised. The first
line out, `{"ready": true}`, says that the script is loaded. Where `answer` has
a parameter `report`, it is given a function to say on the way how far the work
is, in a dict, or nothing but that it goes on; either is a sign of life, a line
under `"progress"`. Neither script imports anything of this package, so that no
layer of the user has to be importable here, and another Python may run it.
"""

import inspect
import json
import os
import runpy
import sys
import time
from typing import Any, TextIO


def main() -> None:
    """Answers until standard input ends."""
    requests, replies = _claim_standard_streams()
    # After the claim: its imports may write to stdout.
    answer = runpy.run_path(sys.argv[1])["answer"]
    is_reporting = "report" in inspect.signature(answer).parameters
    _write(replies, {"ready": True})
    for line in requests:
        message = json.loads(line)
        given = dict(message["request"])
        if is_reporting:
            given["report"] = _report(replies, message["pace"])
        try:
            _write(replies, {**answer(**given), "error": None})
        except Exception as error:
            _write(replies, {"error": f"{type(error).__name__}: {error}"})


def _report(replies: TextIO, pace: float) -> Any:
    """Returns what writes signs of life.

    Args:
        replies: Where to.
        pace: Seconds between two of them that say nothing else.
    """
    last = time.monotonic()

    def report(progress: dict[str, Any] | None = None) -> None:
        nonlocal last
        now = time.monotonic()
        if progress is not None or now >= last + pace:
            last = now
            _write(replies, {"progress": progress})

    return report


def _write(replies: TextIO, line: dict[str, Any]) -> None:
    replies.write(json.dumps(line) + "\n")
    replies.flush()


def _claim_standard_streams() -> tuple[TextIO, TextIO]:
    """Keeps the two streams for the protocol; prints go to standard error."""
    requests = os.fdopen(os.dup(0), "r", encoding="utf-8")
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return requests, replies


if __name__ == "__main__":
    main()
