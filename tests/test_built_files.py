"""What is built of the project carries what it needs."""

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def files_of(folder: Path) -> set[str]:
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A copy of the project without what git ignores: building writes."""
    lines = (ROOT / ".gitignore").read_text("utf-8").splitlines()
    ignored = [line.strip("/") for line in lines if not line.startswith("#")]
    # The last two are what an unpacked source distribution has of its own.
    ignored += [".git", "PKG-INFO", "setup.cfg"]
    ignore = shutil.ignore_patterns(*ignored)
    return shutil.copytree(ROOT, tmp_path / "checkout", ignore=ignore)


def build(checkout: Path, command: str) -> Path:
    """Returns what setuptools, the build backend, makes of the project."""
    subprocess.run(
        [sys.executable, "setup.py", "--quiet", command],
        cwd=checkout,
        check=True,
        capture_output=True,
    )
    (built,) = (checkout / "dist").iterdir()
    return built


def test_the_source_distribution_carries_the_whole_project(checkout):
    expected = files_of(checkout)
    with tarfile.open(build(checkout, "sdist")) as archive:
        names = [file.name for file in archive if file.isfile()]
    carried = {name.split("/", 1)[1] for name in names}

    assert {"Makefile", "tests/written_before/distiller.npz"} <= expected
    assert sorted(expected - carried) == []
    made = {name for name in carried - expected if ".egg-info/" not in name}
    assert made == {"PKG-INFO", "setup.cfg"}


def test_the_wheel_carries_the_package_and_nothing_else(checkout):
    expected = {
        name for name in files_of(checkout) if name.startswith("keras_kddp/")
    }
    with zipfile.ZipFile(build(checkout, "bdist_wheel")) as archive:
        carried = set(archive.namelist())

    assert "keras_kddp/py.typed" in expected
    assert "keras_kddp/export/workers/run_program.py" in expected
    assert {name for name in carried if ".dist-info/" not in name} == expected
