"""Texts for a language model: words to numbers, numbers to rows."""

from collections import Counter
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from adamqlr.errors import UserError
from adamqlr.problems.gpt2 import Gpt2
from adamqlr.problems.problem import Problem
from adamqlr.problems.rows import Rows
from adamqlr.study.settings import DatasetConfig

VOCABULARY, END, UNKNOWN = 10_000, "<eos>", "<unk>"


class Text(NamedTuple):
    """One part of a text.

    Attributes:
        path: Where it is from, for errors.
        words: Its words in a row.
    """

    path: Path
    words: list[str]


def text_problem(key: str, settings: DatasetConfig, train: Text, validation: Text, test: Text) -> Problem:
    """Return the problem of predicting each word from those before it in its row.

    Each part is cut into rows of ``settings.transformer.length``, or of another length that is tuned; the targets are
    the words that follow. What is left at the end is dropped.

    Raises:
        UserError: The settings are not for text, or a part is too short or has words that the training text has not.
    """
    if (settings.model, settings.loss, settings.augmentation) != ("gpt2", "cross_entropy", "none"):
        raise UserError(f"dataset '{key}': text needs model gpt2, loss cross_entropy and augmentation none")
    numbers, texts = vocabulary(train.words), (train, validation, test)

    @cache
    def tokens(part: int) -> Tensor:
        return _numbered(texts[part], numbers)

    def cut(length: int) -> Problem:
        size = settings.transformer.model_copy(update={"length": length})
        first, second, third = (_rows(text.path, tokens(i), len(numbers), length) for i, text in enumerate(texts))
        return Problem(settings.loss, first, second, third, lambda: Gpt2(size, len(numbers)), cut=cut)

    return cut(settings.transformer.length)


def vocabulary(words: list[str]) -> dict[str, int]:
    """Return numbers for the most frequent words, at most 10,000; ``<unk>`` is one of them, where the text has it."""
    counts = Counter(words)
    # A stable sort: equally frequent words stay in the order of their first appearance.
    ranked = sorted(counts, key=lambda word: (word not in (END, UNKNOWN), -counts[word]))
    return {word: number for number, word in enumerate(ranked[:VOCABULARY])}


def _numbered(text: Text, numbers: Mapping[str, int]) -> Tensor:
    path, words = text
    unknown = numbers.get(UNKNOWN)
    if unknown is None and (strange := next((word for word in words if word not in numbers), None)) is not None:
        raise UserError(f"{path}: '{strange}' is none of the training text's {len(numbers)} most frequent words")
    return torch.from_numpy(np.fromiter((numbers.get(word, unknown) for word in words), np.int64, len(words)))


def _rows(path: Path, tokens: Tensor, vocabulary_size: int, length: int) -> Rows:
    rows = (len(tokens) - 1) // length
    if rows < 1:
        raise UserError(f"{path}: {len(tokens)} words are too few for a row of {length} and the word after it")
    inputs, targets = (tokens[start : start + rows * length].view(rows, length) for start in (0, 1))
    return Rows(inputs, targets, outputs=length * vocabulary_size)
