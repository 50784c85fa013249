"""Write what README.md and docs/results.md show of a study: `python docs/write_results.py results/cpu`.

The text is written by hand; between `<!-- NAME -->` and `<!-- end -->` stands what is computed.
"""

import argparse
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from PIL import Image

from adamqlr.claims.judge import Verdict
from adamqlr.claims.more_seeds import more_seeds_text
from adamqlr.claims.statements import CLAIMS as CLAIMS_OF_THE_PAPER
from adamqlr.claims.weigh import summary_verdict
from adamqlr.results.study import Study
from adamqlr.results.study_file import open_study, study_config
from adamqlr.tables import factorial
from adamqlr.tables.final_results import tabulate
from adamqlr.tables.formats import to_markdown

DOCS = Path(__file__).resolve().parent
PAGES, CLAIMS, FIGURES = (
    (DOCS / "results.md", DOCS.parent / "README.md"),
    DOCS / "data" / "cpu_claims.csv",
    DOCS / "results",
)
# Runs of the sixteen searches on UCI Energy, as the names of their files end.
REPETITION_RUNS = ("", "_again")
RESULT_COLUMNS = ("Optimizer", "Training loss", "Test loss", "Test accuracy", "Steps", "Time (s)")
_BLOCK = re.compile(r"(<!-- (?P<name>[\w ]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def results_table(study: Study, dataset: str) -> str:
    """Return what runs end with in the suite of fixed epochs, as Markdown."""
    table = tabulate(study, "epochs")
    rows = (table.numbers["dataset"] == dataset) & ~table.numbers["optimizer"].isin(study.config.factorial_optimizers)
    shown = table.shown[rows][list(RESULT_COLUMNS)]
    filled = [name for name in shown if not (shown[name] == "–").all()]
    return to_markdown(table._replace(shown=shown[filled], best=table.best[rows][filled]))


def factorial_table(study: Study, name: str) -> str:
    """Return final test losses relative to those with the first heuristics, a column for each other, as Markdown."""
    shown, layout = factorial.tabulate(study, "epochs", name).shown, study.config.factorials[name]
    cells = shown.pivot(index=["Dataset", "Direction"], columns="Heuristics", values="Final test loss, relative")
    directions = [layout.direction_label(direction) for direction in layout.directions]
    rows = [(dataset, direction) for dataset in shown["Dataset"].unique() for direction in directions]
    others = [layout.heuristics_label(heuristics) for heuristics in layout.heuristics if heuristics != layout.first]
    return cells.loc[rows, others].reset_index().to_markdown(index=False, disable_numparse=True) + "\n"


def claims_table(claims: pd.DataFrame, suites: Sequence[str]) -> str:
    """Return what some suites say of each claim of the paper, with its interval, as Markdown."""
    claims = _of_the_paper(claims[claims["suite"].isin(suites)])
    rows = claims.to_dict("records")
    shown = {
        "Claim": claims["statement"].where(~claims["statement"].duplicated(), ""),
        "Suite": claims["suite"],
        "Dataset": claims["dataset"],
        "Value [interval]": [f"{row['estimate']:.3g} [{row['lower']:.3g}, {row['upper']:.3g}]" for row in rows],
        "Wanted": [f"{row['relation']} {row['limit']:.3g}" for row in rows],
        "Verdict": claims["verdict"],
        "More seeds": [more_seeds_text(row) for row in rows],
    }
    return pd.DataFrame(shown).to_markdown(index=False, disable_numparse=True) + "\n"


def summary_table(claims: pd.DataFrame) -> str:
    """Return one verdict for each claim, and the second run's, as Markdown; claims of the study's own are left out."""
    verdicts, second = (
        _of_the_paper(table).groupby("statement", sort=False)["verdict"].agg(list).map(summary_verdict)
        for table in (claims, _claims_of("second_run"))
    )
    shown = {"Claim of the paper": verdicts.index, "Verdict": verdicts, "In a second run": second[verdicts.index]}
    return pd.DataFrame(shown).to_markdown(index=False) + "\n"


def again_table(claims: pd.DataFrame) -> str:
    """Return what this study and the second run say where only one of them decides, or they disagree, as Markdown."""
    keys = ["statement", "suite", "dataset"]
    both = claims.merge(_claims_of("second_run"), on=keys, suffixes=("", "_second"))
    both = both[both["verdict"] != both["verdict_second"]]
    shown = {
        "Claim": both["statement"].where(~both["statement"].duplicated(), ""),
        "Suite": both["suite"],
        "Dataset": both["dataset"],
        "This study": _verdicts_with_values(both),
        "Second run": _verdicts_with_values(both, "_second"),
    }
    return pd.DataFrame(shown).to_markdown(index=False, disable_numparse=True) + "\n"


def _verdicts_with_values(table: pd.DataFrame, suffix: str = "") -> pd.Series:
    names = [f"{name}{suffix}" for name in ("estimate", "lower", "upper")]
    values = ["{:.3g} [{:.3g}, {:.3g}]".format(*row) for row in table[names].itertuples(index=False)]
    return table[f"verdict{suffix}"] + ", " + pd.Series(values, index=table.index)


def budget_table() -> str:
    """Return what UCI Energy says of each claim with one budget and five times that, which not all optimizers had."""
    studies = {
        "20 trials": _claims_of("earlier"),
        "20 trials, another seed": _claims_of("seed_1"),
        "100 trials": _claims_of("100_trials"),
        "100 trials, another seed": _claims_of("100_trials_seed_1"),
    }
    # That of the best of all baselines is about others there.
    keys = set(studies["100 trials"]["claim"]) - {"untuned_adamqlr"}
    verdicts, shown = {}, {}
    for name, study in studies.items():
        is_shown = (study["suite"] == "epochs") & (study["dataset"] == "uci_energy") & study["claim"].isin(keys)
        rows = study[is_shown].set_index("statement")
        verdicts[name], shown[name] = rows["verdict"], _verdicts_with_values(rows)
    return _decided(pd.DataFrame(verdicts), shown)


def repetitions_table() -> str:
    """Return what repeated searches on UCI Energy say of each claim: each alone, and eight of them together."""
    runs = [_claims_of(f"single_searches{run}").assign(run=run) for run in REPETITION_RUNS]
    single = pd.concat(runs).pivot(index="statement", columns=["run", "seed"], values="verdict")
    single.columns = single.columns.to_flat_index()
    together = {
        f"{name}{', again' if run else ''}": _claims_of(f"{key}{run}").set_index("statement")
        for run in REPETITION_RUNS
        for name, key in {"Eight searches": "repetitions", "Eight others": "other_repetitions"}.items()
    }
    counts = {
        statement: ", ".join(f"{verdicts.count(one)} {one}" for one in Verdict if one in verdicts)
        for statement, verdicts in single.T.to_dict("list").items()
    }
    shown = {"Each alone": pd.Series(counts)} | {name: _verdicts_with_values(rows) for name, rows in together.items()}
    order = together["Eight searches"].index
    verdicts = single.join([rows["verdict"].rename(name) for name, rows in together.items()])
    return _decided(verdicts, {name: column[order] for name, column in shown.items()})


def _decided(verdicts: pd.DataFrame, shown: Mapping[str, pd.Series]) -> str:
    """Return what is shown of each claim that is decided in any column, as Markdown."""
    is_decided = verdicts.isin([Verdict.SUPPORTED, Verdict.REFUTED]).any(axis=1)
    first = next(iter(shown.values()))
    table = pd.DataFrame(shown).loc[[name for name in first.index if is_decided[name]]]
    return table.fillna("").rename_axis("Claim").reset_index().to_markdown(index=False, disable_numparse=True) + "\n"


def _claims_of(run: str) -> pd.DataFrame:
    return pd.read_csv(DOCS / "data" / f"cpu_{run}_claims.csv")


def _of_the_paper(claims: pd.DataFrame) -> pd.DataFrame:
    return claims[claims["claim"].isin([claim.key for claim in CLAIMS_OF_THE_PAPER])]


def blocks_of(page: str) -> dict[str, str]:
    """Return what is computed in the page, by name."""
    return {match["name"]: match[0].partition("\n")[2].removesuffix("<!-- end -->") for match in _BLOCK.finditer(page)}


def computed(study: Study, claims: pd.DataFrame, name: str) -> str:
    """Return one of the page's tables."""
    kind, *words = name.split()
    if kind == "results":
        return results_table(study, *words)
    if kind == "factorial":
        return factorial_table(study, *words)
    if kind == "claims":
        return claims_table(claims, words)
    if kind in ("again", "summary"):
        return {"again": again_table, "summary": summary_table}[kind](claims)
    return {"budget": budget_table, "repetitions": repetitions_table}[kind]()


def main() -> None:
    """Write the tables into the page, and copy the figures that it shows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path, help="the study's folder, results/<study>")
    folder = parser.parse_args().study
    shutil.copy(folder / "claims.csv", CLAIMS)
    pages = {path: path.read_text(encoding="utf-8") for path in PAGES}
    FIGURES.mkdir(exist_ok=True)
    for name in set(re.findall(r"results/([\w.]+)\.png\)", "".join(pages.values()))):
        source = folder / (f"{name}.png" if name == "claims" else f"figures/{name.replace('.', '/')}.png")
        with Image.open(source) as image:
            # Of lines and their antialiasing, these many colors are told apart by nobody.
            image.convert("RGB").quantize(256).save(FIGURES / f"{name}.png", optimize=True)
    claims = pd.read_csv(CLAIMS)
    path = folder / "study.nc"
    with open_study(path) as tree:
        study = Study(tree, study_config(path))
        for page, text in pages.items():
            page.write_text(
                _BLOCK.sub(lambda match: match[1] + computed(study, claims, match["name"]) + match[3], text),
                encoding="utf-8",
            )


if __name__ == "__main__":
    main()
