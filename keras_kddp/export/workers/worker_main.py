"""The program of a worker: one JSON object per line in, one per line out.

    python worker_main.py HANDLER

`HANDLER` is a script with a function `answer(**request)` that returns what the
reply holds beside `"error"`: null, or the text of what it raised. Of a
generator the last dict is the reply; those before it say how far the work is,
each on a line under `"progress"`. Neither imports anything of this package, so
that no layer of the user has to be importable here, and another Python may run
it.
"""

import json
import os
import runpy
import sys
from collections.abc import Iterator
from typing import Any, TextIO


def main() -> None:
    """Answers until standard input ends."""
    requests, replies = _claim_standard_streams()
    # After the claim: its imports may write to stdout.
    answer = runpy.run_path(sys.argv[1])["answer"]
    for line in requests:
        try:
            for reply in _last_apart(answer(**json.loads(line))):
                replies.write(json.dumps(reply) + "\n")
                replies.flush()
        except Exception as error:
            reply = {"error": f"{type(error).__name__}: {error}"}
            replies.write(json.dumps(reply) + "\n")
            replies.flush()


def _last_apart(answers: Any) -> Iterator[dict[str, Any]]:
    """Yields what goes over the line for an answer, or for many."""
    if isinstance(answers, dict):
        answers = iter([answers])
    reply = next(answers)
    for following in answers:
        yield {"progress": reply}
        reply = following
    yield {**reply, "error": None}


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
