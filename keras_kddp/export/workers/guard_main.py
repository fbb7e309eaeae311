"""What ends and removes what a process leaves behind when it dies.

    python guard_main.py

One JSON list per line: `["add", 123]` for a group of processes,
`["add", "/tmp/folder"]` for a folder, "drop" instead of "add" when the process
has seen to it itself. When the input ends, which it does with the process that
writes it, however that dies, what is left is killed and removed. Nothing of
this package is imported here.
"""

import contextlib
import json
import os
import shutil
import signal
import sys
import time
from typing import Any

_TRIES = 20
_PAUSE = 0.1  # seconds; the killed may write for a moment still


def main() -> None:
    """Reads until the end of the input, and cleans up."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # it may be for the other too
    left: dict[Any, None] = {}
    for line in sys.stdin:
        verb, thing = json.loads(line)
        if verb == "add":
            left[thing] = None
        else:
            left.pop(thing, None)
    for group in (thing for thing in left if isinstance(thing, int)):
        with contextlib.suppress(OSError):
            os.killpg(group, signal.SIGKILL)
    folders = [thing for thing in left if isinstance(thing, str)]
    for _ in range(_TRIES):
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
        folders = [folder for folder in folders if os.path.lexists(folder)]
        if not folders:
            break
        time.sleep(_PAUSE)


if __name__ == "__main__":
    main()
