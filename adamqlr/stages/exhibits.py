"""From a study's file to the figure or table of a name."""

from importlib import import_module
from pathlib import Path
from typing import Any

from adamqlr.errors import UserError
from adamqlr.results.pairs import Study
from adamqlr.results.published import published_file, read_published
from adamqlr.results.study import open_study
from adamqlr.study.config import StudyConfig
from adamqlr.study.exhibits import Exhibit


def make_exhibit(
    kind: str, known: dict[str, Exhibit], name: str, study_path: Path, suite: str, config: StudyConfig
) -> Any:
    """Return what the maker of an exhibit returns.

    Raises:
        UserError: There is none of that name, the file is no study's or has no such suite, or published values beside
            it cannot be read.
    """
    if name not in known:
        raise UserError(f"unknown {kind} '{name}': suite '{suite}' has {', '.join(known) or 'none'}")
    exhibit = known[name]
    module, _, function = exhibit.maker.partition(":")
    published = read_published(published_file(study_path))
    with open_study(study_path, exhibit.part or suite, config=config) as tree:
        return getattr(import_module(module), function)(Study(tree, config, published), suite, **exhibit.options)
