"""The page of results says what its data say."""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from adamqlr.claims.weigh import weigh
from adamqlr.results.pairs import Study
from adamqlr.results.study import open_study, study_config

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
    assert seen == {"budget", "claims", "factorial", "repeated", "repetitions", "results", "summary"}


def test_its_verdicts_follow_from_them(study: Study) -> None:
    stated, found = (
        table[~table["claim"].isin(OF_COURSES)].set_index(["claim", "suite", "dataset", "quantity"])
        for table in (pd.read_csv(CLAIMS), weigh(study))
    )
    assert stated.index.equals(found.index)
    assert stated["verdict"].equals(found["verdict"])
    for name in ("estimate", "lower", "upper"):
        np.testing.assert_allclose(stated[name], found[name], rtol=1e-3, atol=1e-6)
