"""The report: from what a study wrote to one page."""

from pathlib import Path

from adamqlr.errors import UserError
from adamqlr.report.page import write_page
from adamqlr.results.published import published_file, read_published
from adamqlr.results.study import Study
from adamqlr.results.study_file import open_study, study_config
from adamqlr.study.config import StudyConfig


def write_report(folder: Path, config: StudyConfig | None, output: Path) -> None:
    """Write the report of the study in ``folder`` to ``output``.

    Args:
        folder: The study's folder ``results/<study>``, with its cubes, figures, tables and claims.
        config: Decides what there is; as in the folder if not given.
        output: The page.

    Raises:
        UserError: It is no such folder, or something that the report shows is not there or cannot be read.
    """
    if not folder.is_dir():
        raise UserError(
            f"{folder}: no folder; a report shows the figures and tables in a study's folder results/<study>"
        )
    config = config or study_config(folder)
    published = read_published(published_file(folder))
    with open_study(folder, *config.suites, config=config) as tree:
        write_page(folder, Study(tree, config, published), output)
