"""Where a package that an extra brings is missing, one line names the extra; and the version is one everywhere."""

import re
import subprocess
import sys
import tomllib
from importlib import import_module, metadata
from pathlib import Path

import pytest
import yaml

import adamqlr
from adamqlr.extras import MissingExtra, extra_with, extras_named
from adamqlr.study.import_paths import keywords_of

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

# Packages that the package imports; what is not here, its libraries import.
IMPORTED = {
    "study": "click matplotlib netCDF4 numpy optuna pandas pooch pydantic seaborn sklearn snakemake torchvision tqdm "
    "xarray yaml",
    "text": "transformers",
    "zoo": "pytorch_optimizer",
}


@pytest.mark.parametrize(("extra", "package"), [(e, p) for e, names in IMPORTED.items() for p in names.split()])
def test_each_package_is_of_an_extra(extra: str, package: str) -> None:
    assert extra_with(package) == extra


def test_the_extra_is_named() -> None:
    line = r"^transformers is not installed: pip install 'adamqlr\[text\]'$"
    with pytest.raises(MissingExtra, match=line), extras_named():
        raise ModuleNotFoundError("No module named 'transformers'", name="transformers.models")


@pytest.mark.parametrize("name", ["torch", "tor", "pyd", "a_module_of_ones_own", None])
def test_what_no_extra_brings_is_missing_as_ever(name: str | None) -> None:
    with pytest.raises(ModuleNotFoundError), extras_named():
        raise ModuleNotFoundError("no such module", name=name)


def test_names_of_the_study_can_be_imported_as_any_others_or_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "adamqlr.results.study_file", raising=False)
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(ImportError, match=r"pip install 'adamqlr\[study\]'"):
        exec("from adamqlr import load_results", {})


@pytest.mark.parametrize("missing", ["pydantic", "xarray"])
def test_a_command_names_the_extra_wherever_it_notices(missing: str) -> None:
    program = (
        f"import sys, runpy; sys.modules['{missing}'] = None; sys.argv[1:] = ['info', {str(ROOT / 'README.md')!r}]\n"
    )
    program += "runpy.run_module('adamqlr', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr == f"adamqlr: error: {missing} is not installed: pip install 'adamqlr[study]'\n"


def test_an_optimizer_of_an_extra_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pytorch_optimizer", None)
    with pytest.raises(ValueError, match=r"^no module 'pytorch_optimizer': pip install 'adamqlr\[zoo\]'$"):
        keywords_of("pytorch_optimizer:SOAP")


def test_the_command_starts_where_extras_are_looked_for() -> None:
    module, _, function = PROJECT["scripts"]["adamqlr"].partition(":")
    assert module == "adamqlr.__main__"
    assert callable(getattr(import_module(module), function))


def test_the_version_is_one() -> None:
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert adamqlr.__version__ == metadata.version("adamqlr") == PROJECT["version"]
    assert PROJECT["version"] == citation["version"] == re.findall(r"^## \[?(\d[\d.]*)", changes, re.MULTILINE)[0]
