"""The page: verdicts, what was run, the explorer, every suite's figures and tables, and how to make them again."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from adamqlr.files import write_text
from adamqlr.report.exhibits import Figure, TableShown, figure_shown, suites_of, table_shown, what_was_run
from adamqlr.report.explorer import explore
from adamqlr.results.pairs import Study
from adamqlr.study.exhibits import Exhibit
from adamqlr.study.paths import CONFIG_NAME

CLAIMS = Exhibit(
    "The paper's claims",
    "A claim is *supported* where the whole interval is within what is wanted, *refuted* where all of it is beyond, "
    "and *undecided* otherwise. Quantities are ratios (÷) or differences (−) of medians over seeds, with percentile "
    "intervals of bootstrap resamples of the seeds.",
    "",
)
CLAIMS_SUMMARY = Exhibit(
    "A verdict for each claim",
    "*Supported* where it is supported at least once and nowhere refuted, *refuted* where it is refuted at least once "
    "and nowhere supported, *mixed* where both happen, *undecided* where neither does.",
    "",
)
CLAIMS_FIGURE = Exhibit(
    "All claims at a glance",
    "Markers are the quantities that claims are about, lines their intervals; what a claim wants is shaded.",
    "",
)


def write_page(folder: Path, study: Study, output: Path) -> None:
    """Write the report of a study, one page that asks nothing of any other machine.

    Args:
        folder: The study's folder ``results/<study>``, with its figures, tables and claims.
        study: Its cubes.
        output: The page.

    Raises:
        UserError: A figure, a table or the claims are not there.
    """
    environment = Environment(
        loader=PackageLoader("adamqlr.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # As they stand, not by name: datasets, metrics and optimizers have an order.
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False}
    explorer, config = explore(study), study.config
    text = environment.get_template("page.html").render(
        name=config.name,
        claims_figure=_claims_figure(folder),
        claims_tables=_claims_tables(folder),
        what_was_run=what_was_run(folder, config),
        facts=_facts(study),
        config=(folder / CONFIG_NAME).read_text(encoding="utf-8"),
        config_name=CONFIG_NAME,
        index=explorer.index,
        blocks=explorer.blocks,
        suites=suites_of(folder, config),
        beside=os.path.relpath(folder, output.parent),
    )
    write_text(output, text)


def _claims_figure(folder: Path) -> Figure | None:
    return figure_shown(folder, "claims", CLAIMS_FIGURE) if (folder / "claims.png").is_file() else None


def _claims_tables(folder: Path) -> list[TableShown]:
    tables = [table_shown(folder, "claims", CLAIMS)]
    if (folder / "claims_summary.html").is_file():
        tables.insert(0, table_shown(folder, "claims_summary", CLAIMS_SUMMARY))
    return tables


def _facts(study: Study) -> dict[str, str]:
    """Return what all cubes say of where they come from."""
    attrs = [pair.cube.attrs for suite in study.config.suites for pair in study.pairs(suite)]
    versions: dict[str, list[str]] = {}
    for own in attrs:
        for package, version in json.loads(own["versions"]).items():
            versions.setdefault(package, []).append(version)
    dates = sorted(str(own["created"])[:16].replace("T", " ") for own in attrs)
    return {
        "Revision": _distinct(own["git_revision"] for own in attrs),
        "Device": _distinct(own["device"] for own in attrs),
        "Trained": f"{dates[0]} to {dates[-1]} UTC",
        "Versions": ", ".join(f"{package} {' or '.join(dict.fromkeys(found))}" for package, found in versions.items()),
    }


def _distinct(values: Iterable[Any]) -> str:
    return ", ".join(dict.fromkeys(map(str, values)))
