"""The page: verdicts, what was run, the explorer, every suite's figures and tables, and how to make them again."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from adamqlr.files import write_text
from adamqlr.report.exhibits import suites_of, what_was_run
from adamqlr.report.explorer import explore
from adamqlr.report.verdicts import verdicts_of
from adamqlr.results.study import Study
from adamqlr.study.names import CONFIG_NAME


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
        verdicts=verdicts_of(folder, config.claims),
        what_was_run=what_was_run(folder, study),
        facts=_facts(study),
        config=(folder / CONFIG_NAME).read_text(encoding="utf-8"),
        config_name=CONFIG_NAME,
        choices=explorer.choices,
        blocks=explorer.blocks,
        suites=suites_of(folder, study),
        beside=os.path.relpath(folder, output.parent),
    )
    write_text(output, text)


def _facts(study: Study) -> dict[str, str]:
    """Return what all cubes say of where they come from."""
    attrs = [pair.cube.attrs for suite in study.config.suites for pair in study.pairs(suite)]
    versions: dict[str, list[str]] = {}
    for own in attrs:
        for package, version in json.loads(own["versions"]).items():
            versions.setdefault(package, []).append(version)
    dates = sorted(date[:16].replace("T", " ") for own in attrs for date in own["created"].split(", "))
    return {
        "Revision": _distinct(own["git_revision"] for own in attrs),
        "Device": _distinct(own["device"] for own in attrs),
        "Trained": f"{dates[0]} to {dates[-1]} UTC",
        "Versions": ", ".join(f"{package} {' or '.join(dict.fromkeys(found))}" for package, found in versions.items()),
    }


def _distinct(values: Iterable[Any]) -> str:
    return ", ".join(dict.fromkeys(map(str, values)))
