"""The pages: their Python runs as it stands, their links lead somewhere, every public name has its place."""

import re
from collections.abc import Callable
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any

import pytest

import adamqlr
from adamqlr.stages.aggregate import aggregate
from adamqlr.stages.train import train
from adamqlr.study.case import Case
from adamqlr.study.config import load_config
from adamqlr.study.settings import StatisticsConfig

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "adamqlr/optim/README.md",
    "profiles/README.md",
    "workflow/plugins/README.md",
    "results/README.md",
    *(path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "docs").rglob("*.md"))),
]


def python_blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)


def links_of(page: Path) -> list[str]:
    """Return a page's links to others of the repository."""
    targets = re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8"))
    return [target for target in targets if not target.startswith("http")]


def anchors_of(page: Path) -> set[str]:
    """Return what headings are called in links, where repositories are browsed."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_module_of_the_library_has_its_line() -> None:
    page = (ROOT / "adamqlr/optim/README.md").read_text(encoding="utf-8")
    modules = [path.name for path in (ROOT / "adamqlr/optim").glob("*.py") if path.name != "__init__.py"]
    assert [name for name in modules if not re.search(rf"(?<!\w){re.escape(name)}", page)] == []


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, config_file: Callable[..., Path]) -> Path:
    """The folder of results that pages read, with a small study."""
    monkeypatch.chdir(tmp_path)
    config = load_config(config_file(name="quickstart"))
    parts = []
    for optimizer in ("adam_untuned", "adamqlr_untuned"):
        parts.append(tmp_path / f"{optimizer}.nc")
        train(Case(config, "epochs", "digits", optimizer), [0, 1], {}, tmp_path / "runs.nc")
        aggregate([tmp_path / "runs.nc"], parts[-1], 20)
    aggregate(parts, tmp_path / "results" / "quickstart" / "study.nc", 20)
    return tmp_path / "results"


@pytest.mark.parametrize(("page", "count"), [("README.md", 2), ("docs/start.md", 2), ("docs/optimizers.md", 3)])
def test_a_pages_python_runs(page: str, count: int, results: Path) -> None:
    blocks = python_blocks(page)
    assert len(blocks) == count
    for block in blocks:
        exec(compile(block, page, "exec"), {})


def test_the_numbers_that_the_page_of_optimizers_tells_are_its_first_blocks() -> None:
    block, loop = python_blocks("docs/optimizers.md")[0], "for _ in range({}):"
    assert loop.format(10) in block
    infos = []
    # After the first step as well, of which the block itself keeps nothing.
    for code in (block.replace(loop.format(10), loop.format(1)), block):
        names: dict[str, Any] = {}
        exec(compile(code, "optimizers.md", "exec"), names)
        infos.append(names["info"])
    first, last = infos
    told = " ".join((ROOT / "docs/optimizers.md").read_text(encoding="utf-8").split())
    assert f"the loss has gone from {first.loss:.2f} to {last.loss:.2f}" in told
    assert f"chose {first.lr:.0f} times NAdam's own step at first and {last.lr:.0f} times in the end" in told
    assert f"ρ = {first.rho:.2f} and {last.rho:.2f} say" in told
    assert "damping went from 10⁻³ to 10⁻⁶" in told
    # An info has the damping of the step after.
    assert signature(adamqlr.QLR).parameters["damping"].default == 1e-3
    assert float(last.damping) == pytest.approx(1e-6, rel=0.1)


def test_the_tutorial_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    (tmp_path / "results" / "cpu").mkdir(parents=True)
    (tmp_path / "results" / "cpu" / "study.nc").symlink_to(ROOT / "docs" / "data" / "cpu_study.nc")
    names: dict[str, Any] = {}
    for block in python_blocks("docs/tutorial.md"):
        exec(compile(block, "tutorial.md", "exec"), names)
    assert (tmp_path / "learning_rates.png").stat().st_size > 10_000
    assert set(names["seconds"]) >= {"adam_untuned", "adamqlr_untuned"}
    assert all(0 < seconds < 60 for seconds in names["seconds"].values())
    assert len(names["both"]) >= 45
    assert names["both"]["theirs"].equals(names["both"]["own"]), "the same file, the same numbers"
    assert len(names["table"]) == 20


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_links_to_exists(page: str) -> None:
    for target in links_of(ROOT / page):
        path, _, anchor = target.partition("#")
        linked = ROOT / page if not path else (ROOT / page).parent / path
        assert linked.exists(), target
        assert not anchor or anchor in anchors_of(linked), target


def test_each_departure_is_shown_by_a_test_that_there_is() -> None:
    named = re.findall(r"\[`(test_\w+)`\]\(\.\./(tests/[\w/]+\.py)\)", (ROOT / "docs/departures.md").read_text())
    assert len(named) >= 10
    for test, file in named:
        assert f"def {test}(" in (ROOT / file).read_text(), test


def test_the_readme_is_read_in_minutes() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_every_public_name_has_a_page() -> None:
    listed = set()
    for listing in (ROOT / "docs" / "api").glob("*.rst"):
        listed |= set(re.findall(r"^\.\. auto\w+:: (\S+)$", listing.read_text(encoding="utf-8"), re.MULTILINE))
    imported = set()
    for page in PAGES:
        for module, names in re.findall(r"^from (adamqlr\S*) import (.+)$", "".join(python_blocks(page)), re.MULTILINE):
            imported |= {f"{module}.{name}" for name in names.split(", ")}
    public = {f"adamqlr.{name}" for name in adamqlr.__all__} | {"adamqlr.load_results"}
    assert public | imported <= listed
    for name in listed:
        module, _, member = name.rpartition(".")
        assert getattr(import_module(module), member).__doc__, name


def test_the_page_of_results_has_the_number_of_resamples() -> None:
    page = (ROOT / "results/README.md").read_text(encoding="utf-8")
    assert f"resamples of the seeds, {StatisticsConfig().resamples} unless" in page
