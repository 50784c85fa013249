"""Fetching: from a dataset's name to its files in the data folder, and a receipt."""

from pathlib import Path
from pkgutil import resolve_name

from adamqlr.files import write_text
from adamqlr.study.config import StudyConfig
from adamqlr.study.datasets import DATASETS


def fetch(key: str, config: StudyConfig, receipt: Path | None) -> None:
    """Bring a dataset to the data folder, if it is not there, and read it.

    Args:
        key: One of the study's datasets.
        config: The study.
        receipt: A file that names those that hold the dataset, written once they are in place.

    Raises:
        UserError: It can neither be found nor downloaded, or what is there is damaged.
    """
    files = _files_of(key, config)
    if receipt is not None:
        write_text(receipt, "".join(f"{file.name}\n" for file in files))


def _files_of(key: str, config: StudyConfig) -> list[Path]:
    settings, folder = config.dataset(key), config.data_folder
    if settings.path is not None:
        from adamqlr.problems.own_file import find_file

        return [find_file(settings.path, folder)]
    if (fetcher := DATASETS[key].fetcher) is None:
        return []
    files: list[Path] = resolve_name(fetcher)(key, folder)
    return files
