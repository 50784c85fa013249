"""From a study's results to the figure or table of a name."""

from collections.abc import Callable, Mapping
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from adamqlr.errors import UserError
from adamqlr.results.published import Key, Value, published_file, read_published
from adamqlr.results.study import Study
from adamqlr.results.study_file import open_study, study_config
from adamqlr.startup import imports_uncollected
from adamqlr.study.config import StudyConfig
from adamqlr.study.exhibits import Exhibit
from adamqlr.study.names import SENSITIVITY

Contents = Callable[[StudyConfig, str, Mapping[Key, Value]], dict[str, Exhibit]]


def make_exhibit(
    kind: str, contents: Contents, name: str, study_path: Path, suite: str, config: StudyConfig | None
) -> Any:
    """Return what the maker of an exhibit returns.

    Args:
        kind: ``figure`` or ``table``.
        contents: Says which there are of a suite.
        name: Which one.
        study_path: The study's file, or its folder ``results/<study>``, of which what is needed is read.
        suite: The suite, or ``sensitivity``.
        config: Decides what there is and how seeds are resampled; as in the study's file if not given.

    Raises:
        UserError: There is no such exhibit or suite, the file is no study's, or published values beside it cannot be
            read.
    """
    config = config or study_config(study_path)
    if suite != SENSITIVITY:
        config.suite(suite)
    known = contents(config, suite, read_published(published_file(study_path)))
    if name not in known:
        raise UserError(f"unknown {kind} '{name}': suite '{suite}' has {', '.join(known) or 'none'}")
    exhibit = known[name]
    with imports_uncollected():
        make = resolve_name(exhibit.maker)
    with open_study(study_path, exhibit.part or suite, config=config) as tree:
        return make(Study(tree, config, exhibit.published), suite, **exhibit.options)
