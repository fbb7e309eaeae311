"""Reads damaged files, a batch in a process of its own; see test_fuzz_files.

    python files_program.py KIND FIRST COUNT FOLDER

writes a line of JSON per case: its number, what was changed, and what the
reader said. FOLDER holds whole files, which are only read.
"""

import io
import json
import os
import random
import resource
import struct
import sys
import time
import warnings
import zipfile
from pathlib import Path

GIGABYTES = 12  # of addresses, of which TensorFlow reserves most
SECONDS = 20  # for one case
ALLOWED = (ImportError, OSError, ValueError)

HUGE = (
    *(0, -1, 1, 2**31, 2**63, 10**12, 10**400, 1e308, -0.0),
    *(float("nan"), float("inf"), None, True, "", "x" * 5000, "../../x"),
    *([], {}, [[]], "\x00", "\ud800", {"class_name": "Lambda", "config": {}}),
    *("stranger:run", "npz:../../x", "tfds:stranger:run", "stranger"),
    {
        "module": "stranger",
        "class_name": "function",
        "config": "run",
        "registered_name": "run",
    },
    {
        "module": "stranger",
        "class_name": "Run",
        "config": {},
        "registered_name": "stranger>Run",
    },
)


def damaged_bytes(content, draw):
    """Returns bytes with some cut, flipped, put in or written over."""
    content = bytearray(content)
    kind = draw.choice(["flip", "flip", "cut", "insert", "repeat", "word"])
    for _ in range(draw.choice([1, 1, 2, 5, 30])):
        if not content:
            break
        place = draw.randrange(len(content))
        if kind == "flip":
            content[place] ^= 1 << draw.randrange(8)
        elif kind == "cut":
            del content[place : place + draw.choice([1, 4, len(content)])]
        elif kind == "insert":
            content[place:place] = draw.randbytes(draw.randrange(1, 9))
        elif kind == "repeat":
            content[place:place] = content[place : place + 100]
        else:
            word = draw.choice(
                [0, 1, 2**31 - 1, 2**32 - 1, 2**20, len(content)]
            )
            content[place : place + 4] = struct.pack("<I", word)
    return bytes(content), kind


def damaged_json(value, draw):
    """Returns JSON with a value changed, moved, dropped or nested deeply."""
    places = [*_places(value)]
    for _ in range(draw.choice([1, 1, 1, 2, 4])):
        holder, key = draw.choice(places)
        try:
            kind = draw.choice(["put", "put", "put", "drop", "swap", "nest"])
            if kind == "put":
                holder[key] = draw.choice(HUGE)
            elif kind == "drop":
                del holder[key]
            elif kind == "swap":
                other, there = draw.choice(places)
                holder[key], other[there] = other[there], holder[key]
            else:
                for _ in range(draw.choice([3, 2000])):
                    holder[key] = [holder[key]]
        except (IndexError, KeyError):  # dropped before
            pass
    return value


def _places(value):
    keys = ()
    if isinstance(value, dict):
        keys = [*value]
    elif isinstance(value, list):
        keys = range(len(value))
    for key in keys:
        yield value, key
        yield from _places(value[key])


def as_text(value):
    """Returns JSON; of circles and deep lists the beginning."""
    try:
        return json.dumps(value)
    except (RecursionError, ValueError):
        return "[" * draw_depth


draw_depth = 100_000


def damaged_zip(content, draw):
    """Returns an archive with a member changed, renamed, added or bloated."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    name = draw.choice([*parts])
    kinds = ["bytes", "json", "json", "json", "drop", "rename", "add", "bomb"]
    kind = draw.choice(kinds)
    if kind == "json" and "config.json" in parts:
        config = damaged_json(json.loads(parts["config.json"]), draw)
        parts["config.json"] = as_text(config).encode()
    elif kind in ("bytes", "json"):
        parts[name], _ = damaged_bytes(parts[name], draw)
    elif kind == "drop":
        del parts[name]
    elif kind == "rename":
        others = ["../lost", "/lost", "a" * 9000, "x", *parts]
        parts[draw.choice(others)] = parts.pop(name)
    elif kind == "add":
        parts[draw.choice(["../lost", "assets/../../lost", "/tmp/../x"])] = b"x"
    else:
        parts[name] = bytes(draw.choice([10**6, 3 * 10**8]))
    file = io.BytesIO()
    codec = draw.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
    if kind == "bomb":
        codec = zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(file, "w", codec) as archive:
        for each, part in parts.items():
            archive.writestr(each, part)
    made = file.getvalue()
    if draw.random() < 0.2:
        made, _ = damaged_bytes(made, draw)
    return made, f"zip {kind}"


def damaged(path, draw):
    """Returns the changed content of a file."""
    content = path.read_bytes()
    is_zip = path.suffix in (".keras", ".npz")
    if is_zip and draw.random() < 0.7:
        return damaged_zip(content, draw)
    if path.suffix == ".json" and draw.random() < 0.7:
        return as_text(damaged_json(json.loads(content), draw)).encode(), "json"
    return damaged_bytes(content, draw)


SPECS = """digits idx: npz: tfds: idx:. npz:. npz:data.npz
npz:data.npz,scale=255
npz:data.npz,group=x_train npz:data.npz,scale=nan npz:data.npz,scale=1e400
idx:/dev npz:/dev/zero npz:/dev/null npz:/dev/stdin tfds:stranger tfds:a/b:1.0
tfds:stranger:run tfds:../../x tfds:x,train=train[:9e9%] tfds:huggingface:x
tfds:http://x/y npz:data.npz,scale=0 npz:data.npz,group= stranger:run""".split()


def damaged_spec(draw):
    """Returns a text that names data, or nearly."""
    spec = draw.choice(SPECS)
    for _ in range(draw.choice([0, 0, 1, 3])):
        place = draw.randrange(len(spec) + 1)
        piece = draw.choice(
            [":", ",", "=", "/", "..", "\0", "é", "train=", "9"]
        )
        spec = spec[:place] + piece + spec[place + draw.randrange(2) :]
    if draw.random() < 0.05:
        spec += "x" * 5000
    return spec


def read_keras(folder, draw):
    from keras_kddp.compression.model_sources import load_model

    changed, how = damaged(folder / "model.keras", draw)
    Path("model.keras").write_bytes(changed)
    return how, lambda: load_model("model.keras")


def read_tflite(folder, draw):
    from keras_kddp.export import read_metadata
    from keras_kddp.export.tflite.metadata import with_metadata
    from keras_kddp.export.tflite.names import FileNames
    from keras_kddp.export.tflite.operations import operations_of
    from keras_kddp.export.tflite.portable_operations import (
        with_portable_operations,
    )

    changed, how = damaged(folder / "model.tflite", draw)
    Path("model.tflite").write_bytes(changed)
    readers = [
        lambda: read_metadata("model.tflite"),
        lambda: operations_of(changed),
        lambda: with_portable_operations(changed),
        lambda: with_metadata(changed, {}, FileNames()),
    ]
    return how, draw.choice(readers)


def read_data(folder, draw):
    from keras_kddp.data.datasets import load_dataset

    name = draw.choice(["data.npz", "train-images-idx3-ubyte.gz"])
    for file in folder.glob("*ubyte*"):
        Path(file.name).write_bytes(file.read_bytes())
    changed, how = damaged(folder / name, draw)
    Path(name).write_bytes(changed)
    spec = "npz:data.npz" if name == "data.npz" else "idx:."
    return how, lambda: load_dataset(spec)


def read_spec(folder, draw):
    from keras_kddp.data.datasets import load_dataset

    Path("data.npz").write_bytes((folder / "data.npz").read_bytes())
    spec = damaged_spec(draw)
    return spec[:60], lambda: load_dataset(spec, is_trusted=False)


def read_summary(folder, draw):
    from keras_kddp.compression.run_directory import RunDirectory
    from keras_kddp.compression.run_exports import _scores, _sizes
    from keras_kddp.compression.run_summary import read_summary as read
    from keras_kddp.compression.run_teacher import run_teacher

    changed, how = damaged(folder / "summary.json", draw)
    Path("summary.json").write_bytes(changed)

    def use():
        summary = read(Path("summary.json"))
        json.dumps(summary.as_dict())
        _scores(summary), _sizes(summary)
        run_teacher(RunDirectory(Path("nowhere")), summary)

    return how, use


def read_cache(folder, draw):
    from keras_kddp.distillation.teacher.files import read_outputs

    # Not the list of files, which says whose they are, and is not read.
    files = sorted((folder / "cache").glob("[!.]*"))
    for file in files:
        Path(file.name).write_bytes(file.read_bytes())
    file = draw.choice(files)
    changed, how = damaged(file, draw)
    Path(file.name).write_bytes(changed)
    whole = json.loads((folder / "cache" / "key.json").read_text())
    key = {name: whole[name] for name in ("teacher", "data")}

    def use():
        for output in read_outputs(Path(), key):
            float(output.values.sum())
        if changed != file.read_bytes():
            raise AssertionError("a changed cache was read")

    return f"{file.name} {how}", use


READERS = {
    "keras": read_keras,
    "tflite": read_tflite,
    "data": read_data,
    "spec": read_spec,
    "summary": read_summary,
    "cache": read_cache,
}


def judged(use):
    """Returns what a reader said: "read", or its error."""
    try:
        use()
    except ALLOWED as error:
        return f"refused: {type(error).__name__}: {error}"[:300]
    except BaseException as error:  # to be told, whatever it is
        return f"WRONG: {type(error).__name__}: {error}"[:600]
    return "read"


def main():
    kind, first, count, folder = sys.argv[1:]
    folder = Path(folder).resolve()
    read_whole = READERS[kind]
    warnings.simplefilter("ignore")
    import keras  # noqa: F401 before addresses are limited

    size = GIGABYTES << 30
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    for number in range(int(first), int(first) + int(count)):
        how, use = read_whole(folder, random.Random(f"{kind} {number}"))
        print(json.dumps({"case": number, "how": how}), flush=True)
        begun = time.monotonic()
        said = judged(use)
        seconds = time.monotonic() - begun
        if seconds > SECONDS:
            said = f"WRONG: {seconds:.0f} seconds"
        print(json.dumps({"case": number, "said": said}), flush=True)


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    main()
