"""What each command imports of the packages that take long to import: what it uses, and no more."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from adamqlr.cli import cli

HEAVY = {
    "matplotlib",
    "optuna",
    "pandas",
    "pydantic",
    "scipy",
    "seaborn",
    "sklearn",
    "torch",
    "torch._dynamo",
    "torchvision",
    "transformers",
    "xarray",
}

STUDY = {
    "name": "small",
    "device": "cpu",
    "datasets": {"digits": {"epochs": 1}, "diabetes": {"epochs": 1}, "rosenbrock": {"epochs": 5}, "uci_energy": {}},
    "optimizers": ["adam", "adamqlr", "adamqlr_untuned", "kfac_untuned"],
    "ablations": {},
    "tuning": {"trials": 2, "unit": "epochs", "first_rung": 1, "limit": 2, "shards": 1},
    "training": {"seeds": 1},
    "sensitivity": {
        "batches": {
            "dataset": "digits",
            "optimizer": "adamqlr_untuned",
            "parameter": "batch_size",
            "values": [50, 3200],
        }
    },
}

# pandas comes with xarray, without which none of the result files is written or read.
FILES = {"pandas", "xarray"}
# Pydantic checks the configuration.
SHOWING = FILES | {"pydantic"}
TRAINING = SHOWING | {"torch"}
DRAWING = SHOWING | {"matplotlib", "seaborn"}

# In this order: later commands read what earlier ones wrote.
CASES: dict[str, tuple[str, set[str]]] = {
    "--help": ("--help", set()),
    "fetch of nothing": ("fetch --config study.yaml --dataset digits", {"pydantic"}),
    "fetch of a table": ("fetch --config study.yaml --dataset uci_energy", {"pydantic", "torch"}),
    "train a perceptron": (
        "train --config study.yaml --dataset digits --optimizer adamqlr_untuned --output digits.nc",
        TRAINING,
    ),
    "train K-FAC": (
        "train --config study.yaml --dataset diabetes --optimizer kfac_untuned --output diabetes.nc",
        TRAINING,
    ),
    "train a function": (
        "train --config study.yaml --dataset rosenbrock --optimizer adamqlr_untuned --output rosenbrock.nc",
        TRAINING,
    ),
    "step costs": ("step-costs --config study.yaml --dataset digits --optimizer adam --output costs.csv", TRAINING),
    "tune": ("tune --config study.yaml --dataset digits --optimizer adam --output 0.nc", TRAINING | {"optuna"}),
    "select": ("select 0.nc --output trials.nc --best best.yaml", FILES),
    "sweep": ("sweep batches --config study.yaml --value 3200 --output sweep.nc", TRAINING),
    "aggregate runs": ("aggregate digits.nc --output digits_cube.nc", FILES),
    "aggregate more runs": ("aggregate rosenbrock.nc --output rosenbrock_cube.nc", FILES),
    "aggregate cubes": ("aggregate digits_cube.nc rosenbrock_cube.nc trials.nc --output study.nc", FILES),
    "figures of curves": ("figures loss --study study.nc --suite epochs --output loss", DRAWING),
    "figures of damping": ("figures damping --study study.nc --suite epochs --output damping", DRAWING),
    "figures of trajectories": ("figures trajectories --study study.nc --suite epochs --output trajectories", DRAWING),
    "tables": ("tables final_results --study study.nc --suite epochs --output final_results", SHOWING),
    "claims": ("claims --study study.nc --output claims", DRAWING),
    "info": ("info study.nc", SHOWING),
    "status": ("status results/small", {"pydantic"}),
    "schema": ("schema", {"pydantic"}),
}

# Runs the command line and prints, as the last line, who asked first for each heavy package that was imported.
WATCHED = """
import json, sys, traceback
from importlib.util import find_spec

package = find_spec("adamqlr").submodule_search_locations[0]
heavy, sys.argv = json.loads(sys.argv[1]), ["adamqlr", *sys.argv[2:]]
importers = {}

class Watcher:
    def find_spec(name, path=None, target=None):
        if name in heavy and name not in importers:
            frames = [f for f in traceback.extract_stack()[:-1] if not f.filename.startswith("<")]
            own = [f for f in frames if f.filename.startswith(package)] or frames
            importers[name] = " for ".join(dict.fromkeys(f"{f.filename}:{f.lineno}" for f in (frames[-1], own[-1])))

sys.meta_path.insert(0, Watcher)
from adamqlr.cli import main
try:
    main()
except SystemExit as stopped:
    code = stopped.code
print(json.dumps({name: importers.get(name, "?") for name in heavy if name in sys.modules}))
sys.exit(code)
"""


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """The heavy packages that each command imported, and who asked for them first."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "study.yaml").write_text(yaml.safe_dump(STUDY | {"data_dir": str(folder)}))
    (folder / "results" / "small").mkdir(parents=True)
    (folder / "results" / "small" / "config.yaml").write_text(yaml.safe_dump(STUDY))
    (folder / "uci_energy").mkdir()
    (folder / "uci_energy" / "data.txt").write_text("1 2 3\n4 5 6\n")
    return {name: run(arguments, folder) for name, (arguments, _) in CASES.items()}


def run(arguments: str, folder: Path) -> dict[str, str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("ADAMQLR_DATA_DIR", raising=False)
        command = [sys.executable, "-c", WATCHED, json.dumps(sorted(HEAVY)), *arguments.split()]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"adamqlr {arguments}: {done.stderr}"
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("case", CASES)
def test_a_command_imports_what_it_uses(case: str, imported: dict[str, dict[str, str]]) -> None:
    arguments, used = CASES[case]
    needless = [f"{name}, by {importer}" for name, importer in imported[case].items() if name not in used]
    assert not needless, f"adamqlr {arguments} imports what it does not use: {'; '.join(needless)}"


def test_every_command_is_watched() -> None:
    # The report reads what all the others have made, and takes what they take.
    assert {arguments.split()[0] for arguments, _ in CASES.values()} == {"--help", *cli.commands} - {"report"}
