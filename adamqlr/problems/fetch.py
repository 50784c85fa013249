"""Downloads: the only place that touches the network."""

import shutil
from pathlib import Path

import pooch

from adamqlr.config import StudyConfig
from adamqlr.errors import UserError
from adamqlr.problems import imagenet, penn_treebank
from adamqlr.problems.images import IMAGE_SETS, read_part
from adamqlr.problems.own_file import find_file
from adamqlr.problems.text_table import read_table
from adamqlr.problems.uci import TABLE, TABLES


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
        return [find_file(settings.path, folder)]
    if key in TABLES:
        return [_fetch_table(key, folder)]
    if key in IMAGE_SETS:
        return [_fetch_images(key, folder)]
    if key == "penn_treebank":
        return [_fetch_text(folder / key / file.name, file) for file in penn_treebank.FILES.values()]
    if key == "imagenet":
        imagenet.class_names(folder / key)
        return [folder / key]
    return []


def _fetch_table(key: str, folder: Path) -> Path:
    path, known = folder / key / TABLE, TABLES[key]
    _download(path, known.url, f"sha256:{known.sha256}")
    read_table(path)
    return path


def _fetch_text(path: Path, file: penn_treebank.TextFile) -> Path:
    _download(path, f"{penn_treebank.URL}/{file.name}", f"md5:{file.md5}")
    penn_treebank.read_words(path)
    return path


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
