"""Both distributions as users get them: wheels, each beside what its metadata asks for and nothing else."""

import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PLUGIN = ROOT / "workflow" / "plugins"

pytestmark = pytest.mark.slow

IMPORT_SECONDS = """
import time
import torch
start = time.process_time()
from adamqlr import *
print(time.process_time() - start)
"""

SNAKEFILE = """
rule all:
    input: "joined.txt"

rule write:
    output: "{letter}.txt"
    resources: mem_mb=100, runtime=5
    shell: "echo {wildcards.letter} > {output}"

rule join:
    input: "a.txt", "b.txt"
    output: "joined.txt"
    resources: mem_mb=100, runtime=5
    shell: "cat {input} > {output}"
"""

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The wheels by distribution, built with what is installed."""
    folder = tmp_path_factory.mktemp("wheels")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", str(folder), str(ROOT), str(PLUGIN)], check=True)
    return {path.name.partition("-")[0]: path for path in folder.glob("*.whl")}


def requirements(wheel: Path) -> list[str]:
    """Return what a wheel requires without extras."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        lines = archive.read(name).decode().splitlines()
    found = [line.removeprefix("Requires-Dist: ") for line in lines if line.startswith("Requires-Dist: ")]
    return [requirement for requirement in found if "extra ==" not in requirement]


def needed(wanted: Iterable[str]) -> dict[str, metadata.Distribution]:
    """Return the installed distributions that requirements, and what they require, come down to."""
    found: dict[str, metadata.Distribution] = {}
    left = list(wanted)
    while left:
        requirement = Requirement(left.pop())
        name = canonicalize_name(requirement.name)
        if name in found or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        found[name] = metadata.distribution(name)
        left += found[name].requires or []
    return found


def environment(folder: Path, wheel: Path, wanted: Iterable[str]) -> Run:
    """Make an environment with a wheel and what ``wanted`` comes down to; return what runs its programs."""
    python = folder / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    install = [sys.executable, "-m", "pip", "--quiet", "--python", str(python), "install", "--no-index", "--no-deps"]
    subprocess.run([*install, str(wheel)], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    for distribution in needed(wanted).values():
        for name in {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
            if not (packages / name).exists():
                (packages / name).symlink_to(str(distribution.locate_file(name)))
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(*command: str, cwd: Path = folder) -> "subprocess.CompletedProcess[str]":
        program = [str(folder / "bin" / command[0]), *command[1:]]
        return subprocess.run(program, cwd=cwd, env=variables, capture_output=True, text=True, timeout=300)

    return run


@pytest.fixture(scope="module")
def library(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """An environment with ``adamqlr`` and PyTorch."""
    return environment(tmp_path_factory.mktemp("library"), wheels["adamqlr"], requirements(wheels["adamqlr"]))


def test_the_library_requires_pytorch_alone(wheels: dict[str, Path]) -> None:
    (requirement,) = requirements(wheels["adamqlr"])
    assert Requirement(requirement).name == "torch"


def test_wheels_hold_one_package_each(wheels: dict[str, Path]) -> None:
    tops = {}
    for name, wheel in wheels.items():
        with zipfile.ZipFile(wheel) as archive:
            tops[name] = {path.partition("/")[0] for path in archive.namelist()}
    assert {name: {top for top in found if ".dist-info" not in top} for name, found in tops.items()} == {
        "adamqlr": {"adamqlr"},
        "snakemake_executor_plugin_submitit": {"snakemake_executor_plugin_submitit"},
    }


def test_the_readmes_optimizer_runs_with_pytorch_alone(library: Run) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    (block,) = (block for block in blocks if "import QLR" in block)
    done = library("python", "-c", block)
    assert done.returncode == 0, done.stderr
    assert re.match(r"loss 0\.\d+, learning rate [\d.]+, damping", done.stdout)


def test_the_library_takes_little_longer_to_import_than_pytorch(library: Run) -> None:
    assert any(float(library("python", "-c", IMPORT_SECONDS).stdout) < 0.2 for _ in range(3))


def test_what_an_extra_brings_is_asked_for_in_one_line(library: Run) -> None:
    done = library("python", "-c", "import adamqlr; adamqlr.load_results")
    assert re.search(r"MissingExtra: \w+ is not installed: pip install 'adamqlr\[study\]'$", done.stderr.strip())
    done = library("adamqlr", "--help")
    assert done.returncode == 2
    assert done.stderr == "adamqlr: error: click is not installed: pip install 'adamqlr[study]'\n"
    assert library("python", "-c", "import adamqlr; help(adamqlr)").returncode == 0


def test_the_executor_serves_a_workflow_that_knows_nothing_of_the_library(
    wheels: dict[str, Path], tmp_path: Path
) -> None:
    wheel = wheels["snakemake_executor_plugin_submitit"]
    run = environment(tmp_path / "environment", wheel, ["snakemake", *requirements(wheel)])
    assert "No module named 'adamqlr'" in run("python", "-c", "import adamqlr").stderr
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    options = ["--executor", "submitit", "--jobs", "2", "--submitit-cluster", "local", "--latency-wait", "5"]
    done = run("python", "-m", "snakemake", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "joined.txt").read_text() == "a\nb\n"
    assert "Submitted 2 jobs of write" in done.stderr
