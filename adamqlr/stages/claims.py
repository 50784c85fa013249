"""Claims: from a study's file to verdicts."""

from pathlib import Path

from adamqlr.claims.report import weigh, write_claims
from adamqlr.results.pairs import Study
from adamqlr.results.study import open_study, study_config
from adamqlr.study.config import StudyConfig


def judge_claims(study_path: Path, config: StudyConfig | None, stem: Path) -> None:
    """Weigh every claim on a study, and write ``stem``.csv, .md and .html.

    Args:
        study_path: The study's file, or its folder ``results/<study>``.
        config: Margins and resampling; as in the study's file if not given.
        stem: Path of the files, less the suffix.

    Raises:
        UserError: The file is no study's.
    """
    config = config or study_config(study_path)
    with open_study(study_path, config=config) as tree:
        table = weigh(Study(tree, config))
    write_claims(table, config.claims, stem)
