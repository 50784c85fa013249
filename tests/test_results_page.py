"""The page of results says what its data say."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from adamqlr.claims.weigh import weigh
from adamqlr.errors import UserError
from adamqlr.results.repetitions import open_repetitions
from adamqlr.results.study import Study
from adamqlr.results.study_file import open_study, study_config
from adamqlr.stages.info import describe

DOCS = Path(__file__).resolve().parents[1] / "docs"
sys.path.insert(0, str(DOCS))

from write_results import CLAIMS, PAGES, blocks_of, computed  # noqa: E402

# Those that look at whole courses, of which the file in the repository has some points only.
OF_COURSES = {"untuned_adamqlr", "kfac_overfits", "growing_learning_rate"}


@pytest.fixture(scope="module")
def study() -> Iterator[Study]:
    path = DOCS / "data" / "cpu_study.nc"
    assert path.stat().st_size < 6e6
    with open_study(path) as tree:
        yield Study(tree, study_config(path))


def test_its_tables_are_computed_from_them(study: Study) -> None:
    claims, seen = pd.read_csv(CLAIMS), set()
    for page in PAGES:
        for name, text in blocks_of(page.read_text(encoding="utf-8")).items():
            assert text == computed(study, claims, name), f"run docs/write_results.py: {name}"
            seen.add(name.partition(" ")[0])
    assert seen == {"again", "budget", "claims", "factorial", "repetitions", "results", "summary"}


def test_its_verdicts_follow_from_them(study: Study) -> None:
    stated, found = (
        table[~table["claim"].isin(OF_COURSES)].set_index(["claim", "suite", "dataset", "quantity"])
        for table in (pd.read_csv(CLAIMS), weigh(study))
    )
    assert stated.index.equals(found.index)
    assert stated["verdict"].equals(found["verdict"])
    for name in ("estimate", "lower", "upper"):
        np.testing.assert_allclose(stated[name], found[name], rtol=1e-3, atol=1e-6)


def test_what_was_thinned_says_so_and_is_not_weighed(tmp_path: Path) -> None:
    # The library crashes where a file is opened that this process has open, as the other tests have.
    path = Path(shutil.copy(DOCS / "data" / "cpu_study.nc", tmp_path))
    described = describe(path)
    assert "\n  thinned: 16 times and steps of each curve" in described
    assert "/sensitivity/lr_rescaling/0.5: 5 seeds, 0 diverged" in described
    with (
        pytest.raises(UserError, match=r"cpu_study\.nc holds 16 times .* weigh the study it is of"),
        open_repetitions([path], None),
    ):
        pass


def test_adapted_damping_is_at_its_floor_in_all_nine_cases(study: Study) -> None:
    """As the page says of the claim about damping: within a tenth of the steps, and in seven at the end."""
    early, at_end = [], []
    for suite in ("epochs", "runtime_train", "runtime_validation"):
        for dataset in ("uci_energy", "uci_protein", "fashion_mnist"):
            cube = study.tree[f"{suite}/{dataset}/adamqlr"].to_dataset()
            damping = cube["value_by_step"].sel(metric="damping").median("seed").values
            steps = cube["step"].values / cube["step"].values[-1]
            early.append(bool((damping[(steps > 0) & (steps < 0.1)] < 1.1e-8).any()))
            at_end.append(bool(damping[-1] < 1.1e-8))
    assert (sum(early), sum(at_end)) == (9, 7)
    assert_says("In all nine cases its median over seeds is at the floor, `min_damping` = 1e-8, within a tenth of the")
    assert_says("of the steps, and in seven it ends there")


def assert_says(sentence: str) -> None:
    """Look for a sentence, or a part of it, in the page, wherever its lines break."""
    assert sentence in " ".join((DOCS / "results.md").read_text(encoding="utf-8").split())


def test_stepping_factors_that_end_alike_are_those_that_the_page_names(study: Study) -> None:
    ends = {
        str(leaf.name): leaf.to_dataset()["value"].isel(time=-1).sel(metric="test_accuracy").values
        for leaf in study.tree["sensitivity/stepping_factor"].leaves
    }
    alike = [name for name, values in ends.items() if np.array_equal(values, ends["2"])]
    first, last = min(alike, key=float), max(alike, key=float)
    assert len(alike) == 7
    assert_says(f"every factor from {first} to {last} λ is at its floor at once")


def test_batch_sizes_that_diverge_are_those_that_the_page_names(study: Study) -> None:
    def diverged(sweep: str) -> dict[str, int]:
        leaves = study.tree[f"sensitivity/{sweep}"].leaves
        return {str(leaf.name): int(leaf["diverged"].sum()) for leaf in leaves if leaf["diverged"].any()}

    assert diverged("batch_size") == {"50": 5, "100": 5, "200": 5}
    assert_says("At 50, 100 and 200 rows AdamQLR diverges on Fashion-MNIST in all 15 runs")
    assert diverged("kfac_batch_size") == {"200": 3}
    assert_says("K-FAC diverges at 200 rows as well, in its three runs")
    assert not diverged("adam_batch_size")


def claims_of(name: str) -> pd.DataFrame:
    return pd.read_csv(DOCS / "data" / f"cpu_{name}_claims.csv")


def test_eight_searches_and_eight_others_say_what_the_page_says() -> None:
    first, other = (claims_of(name).set_index("claim") for name in ("repetitions", "other_repetitions"))
    decided = first.index[first["verdict"] != "undecided"]
    differ = decided[first.loc[decided, "verdict"] != other.loc[decided, "verdict"]]
    assert (len(decided), list(differ), other.loc["ranks", "verdict"]) == (7, ["ranks"], "undecided")
    assert_says("Of seven claims that the first eight decide together, the second eight decide six alike.")
    less = sorted(round(100 * (1 - table["estimate"]["adaptive_kfac"])) for table in (first, other))
    assert_says(f"Over searches, K-FAC's heuristics take {less[0]} to {less[1]} % off its test loss")


def test_single_searches_say_what_the_page_says() -> None:
    alone = claims_of("single_searches")
    assert sorted(alone["seed"].unique()) == list(range(16))
    verdicts = alone.groupby("claim")["verdict"].agg(list)
    contradicted = verdicts.index[verdicts.map({"supported", "refuted"}.issubset)]
    assert list(contradicted) == ["untuned_adamqlr"]
    assert_says("Single searches contradict each other about one claim alone")
    counts = [verdicts["untuned_adamqlr"].count(verdict) for verdict in ("supported", "refuted")]
    assert counts == [2, 2]
    assert_says("supported twice and refuted twice")
    unanimous = verdicts.index[verdicts.map(lambda found: set(found) != {"undecided"} and len(set(found)) == 1)]
    assert set(unanimous) == {"untuned_pair", "growing_learning_rate"}
    of_kfac = alone[alone["claim"] == "adaptive_kfac"]
    assert (verdicts["adaptive_kfac"].count("undecided"), round(of_kfac["estimate"].max(), 2)) == (7, 0.9)
    assert_says("anything from 10 % to all of it, and is undecided seven times in sixteen")


def test_the_second_run_gives_the_verdicts_that_the_page_says() -> None:
    rows = ["claim", "suite", "dataset"]
    both = pd.read_csv(CLAIMS).merge(claims_of("second_run"), on=rows)
    decided = both[both["verdict_x"] != "undecided"]
    same, undecided = decided["verdict_y"] == decided["verdict_x"], decided["verdict_y"] == "undecided"
    only_there = (both["verdict_x"] == "undecided") & (both["verdict_y"] != "undecided")
    assert (same | undecided).all(), "none turns around"
    assert_says(
        f"Of the {len(decided)} rows that are decided here, {same.sum()} have the same verdict there, "
        f"{undecided.sum()} are undecided there, and none turns around; "
        f"{only_there.sum()} that are undecided here are decided there."
    )
    untimed = both["suite"].isin(["epochs", "sensitivity"])
    equal, other = both["estimate_x"] == both["estimate_y"], both["verdict_x"] != both["verdict_y"]
    assert_says(f"{equal[untimed].sum()} of {untimed.sum()} estimates are equal to the last digit")
    assert (other[untimed].sum(), other[~untimed].sum()) == (1, 15)
