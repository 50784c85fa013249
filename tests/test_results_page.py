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

from write_results import CLAIMS, PAGES, REPETITION_RUNS, blocks_of, computed  # noqa: E402

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


def groups_of_searches() -> list[tuple[pd.DataFrame, pd.DataFrame]]:
    """What eight searches say of each claim, and eight others, in each run of them."""
    keys = ("repetitions", "other_repetitions")
    return [tuple(claims_of(f"{key}{run}").set_index("claim") for key in keys) for run in REPETITION_RUNS]  # type: ignore[misc]


def test_eight_searches_and_eight_others_say_what_the_page_says() -> None:
    differing = []
    for first, other in groups_of_searches():
        decided = first.index[first["verdict"] != "undecided"]
        differ = decided[first.loc[decided, "verdict"] != other.loc[decided, "verdict"]]
        assert len(decided) == 7
        assert (other.loc[differ, "verdict"] == "undecided").all(), "none turns around"
        differing.append(list(differ))
    assert differing == [["ranks"], []]
    assert_says("eight others decided six alike in the first run, and all seven in the second")
    less = sorted(
        round(100 * (1 - table["estimate"]["adaptive_kfac"])) for pair in groups_of_searches() for table in pair
    )
    assert_says(f"Over searches, K-FAC's heuristics take {less[0]} to {less[-1]} % off its test loss")


def test_single_searches_say_what_the_page_says() -> None:
    runs = [claims_of(f"single_searches{run}") for run in REPETITION_RUNS]
    assert all(sorted(alone["seed"].unique()) == list(range(16)) for alone in runs)
    alone = pd.concat(runs)
    verdicts = alone.groupby("claim")["verdict"].agg(list)
    contradicted = verdicts.index[verdicts.map({"supported", "refuted"}.issubset)]
    assert set(contradicted) == {"untuned_adamqlr", "adaptive_kfac"}
    assert_says("Single searches contradict each other about two claims")
    counts = [verdicts["untuned_adamqlr"].count(verdict) for verdict in ("supported", "refuted")]
    assert counts == [2, 4]
    assert_says("supported twice and refuted four times")
    unanimous = verdicts.index[verdicts.map(lambda found: set(found) != {"undecided"} and len(set(found)) == 1)]
    assert set(unanimous) == {"untuned_pair", "growing_learning_rate"}
    estimates, of_kfac = alone[alone["claim"] == "adaptive_kfac"]["estimate"], verdicts["adaptive_kfac"]
    assert (of_kfac.count("undecided"), of_kfac.count("refuted"), len(of_kfac)) == (15, 1, 32)
    assert (round(estimates.min(), 2), round(estimates.max(), 2)) == (0.0, 1.18)
    assert_says("anything from all of it to 18 % more, and is undecided fifteen times in thirty-two")


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
