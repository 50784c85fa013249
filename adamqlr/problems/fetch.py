"""Downloads: the only place that touches the network."""

import shutil
from pathlib import Path

import pooch

from adamqlr.config import StudyConfig
from adamqlr.errors import UserError
from adamqlr.problems.registry import DATASETS
from adamqlr.problems.text_table import read_table

# What reads each kind of data is imported where it is fetched: torchvision, for one, takes seconds.


def fetch(key: str, config: StudyConfig) -> list[Path]:
    """Bring a dataset to the data folder, if it is not there, and read it.

    Args:
        key: One of the study's datasets.
        config: The study.

    Returns:
        The files or folders that hold it; none for a dataset that comes with a library.

    Raises:
        UserError: It can neither be found nor downloaded, or what is there is damaged.
    """
    settings, folder = config.dataset(key), config.data_folder
    if settings.path is not None:
        from adamqlr.problems.own_file import find_file

        return [find_file(settings.path, folder)]
    if not DATASETS[key].downloads:
        return []
    if key == "penn_treebank":
        return _fetch_text(folder / key)
    if key == "imagenet":
        from adamqlr.problems.imagenet import class_names

        class_names(folder / key)
        return [folder / key]
    if key.startswith("uci_"):
        return [_fetch_table(key, folder)]
    return [_fetch_images(key, folder)]


def _fetch_table(key: str, folder: Path) -> Path:
    from adamqlr.problems.uci import TABLE, TABLES

    path, known = folder / key / TABLE, TABLES[key]
    _download(path, known.url, f"sha256:{known.sha256}")
    read_table(path)
    return path


def _fetch_text(folder: Path) -> list[Path]:
    from adamqlr.problems.penn_treebank import FILES, URL, read_words

    paths = []
    for file in FILES.values():
        path = folder / file.name
        _download(path, f"{URL}/{file.name}", f"md5:{file.md5}")
        read_words(path)
        paths.append(path)
    return paths


def _download(path: Path, url: str, checksum: str) -> None:
    """Bring a file to ``path``, if it is not there."""
    if path.is_file():
        return
    try:
        # pooch writes under a temporary name and moves the file into place once its checksum is right.
        pooch.retrieve(url, checksum, fname=path.name, path=path.parent, progressbar=True)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: cannot be downloaded from {url} ({reason}); it can be put there by hand") from error


def _fetch_images(key: str, folder: Path) -> Path:
    from adamqlr.problems.images import read_part

    root = folder / key
    existed = root.exists()
    try:
        for train in (True, False):
            read_part(key, root, train)
    except UserError:
        try:
            for train in (True, False):
                read_part(key, root, train, download=True)
        except UserError:
            # torchvision makes the folder before it finds out that there is no way out.
            if not existed:
                shutil.rmtree(root, ignore_errors=True)
            raise
    return root
