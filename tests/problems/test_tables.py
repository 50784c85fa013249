"""Text tables, the UCI splits and standardization."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.preprocessing import StandardScaler

from adamqlr.errors import UserError
from adamqlr.problems.problem import load_problem
from adamqlr.problems.standardize import standardization_of
from adamqlr.problems.text_table import read_table
from adamqlr.study.config import StudyConfig, parse_config
from tests.problems.in_memory import parts_of, rows_in

CPU = torch.device("cpu")


def study_of(path: Path | str, **settings: object) -> StudyConfig:
    dataset = {"path": str(path), "loss": "half_mse", "epochs": 1, "batch_size": 8, **settings}
    return parse_config({"name": "t", "datasets": {"mine": dataset}, "optimizers": ["adam_untuned"]}, "test")


@pytest.fixture
def table(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "table.txt"
        path.write_text(text)
        return path

    return write


@pytest.mark.parametrize(
    "text", ["1 2 3\n4 5 6\n", "1,2,3\n4, 5,6\n", "a,b,c\n1,2,3\n4,5,6", "# note\n1 2 3 # x\n\n4 5 6\n"]
)
def test_formats(table: Callable[[str], Path], text: str) -> None:
    np.testing.assert_array_equal(read_table(table(text)), [[1, 2, 3], [4, 5, 6]])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("1 2 3\n4 high 6\n", r"table\.txt: line 2, column 2: 'high' is not a finite number"),
        ("1,2,3\n4,,6\n", r"line 2, column 2: '' is not a finite number"),
        ("1 2 3\n4 nan 6\n", r"line 2, column 2: 'nan'"),
        ("x y z\n1 2 3\n4 5 inf\n", r"line 3, column 3: 'inf'"),
        ("1 2 3\n4 5\n", r"line 2 has 2 columns, the lines before it 3"),
        ("1\n2\n", "at least one feature and a target"),
        ("", "at least one feature and a target"),
    ],
)
def test_what_is_no_number_is_named(table: Callable[[str], Path], text: str, problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        read_table(table(text))


def test_binary_and_missing_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_bytes(bytes(range(128, 256)))
    with pytest.raises(UserError, match=r"b\.txt: not a text file"):
        read_table(tmp_path / "b.txt")
    with pytest.raises(UserError, match=r"none\.txt: no such file"):
        read_table(tmp_path / "none.txt")


def test_ones_own_table_is_split_and_standardized(table: Callable[[str], Path]) -> None:
    generator = np.random.default_rng(0)
    values = np.column_stack([generator.normal(5, 3, (100, 2)), np.full(100, 7.1), generator.normal(size=100)])
    path = table("\n".join(" ".join(map(repr, row)) for row in values.tolist()))
    parts = parts_of(load_problem("mine", study_of(path, test_fraction=0.2, validation_fraction=0.25), CPU))
    assert [len(rows) for rows in parts] == [60, 20, 20]
    train, validation, _ = parts
    together = torch.cat([train.inputs, validation.inputs]).double()
    torch.testing.assert_close(together.mean(0), torch.zeros(3).double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(together.std(0, correction=0)[:2], torch.ones(2).double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(together[:, 2], torch.zeros(80).double(), atol=1e-12, rtol=0)
    assert train.inputs.dtype == torch.float32


def test_standardization_equals_scikit_learns() -> None:
    values = np.random.default_rng(1).normal(1e4, 3, size=(2500, 4))
    expected = StandardScaler().fit(values)
    ours = standardization_of(values)
    np.testing.assert_allclose(ours(values), expected.transform(values), atol=1e-6)
    images = np.random.default_rng(2).integers(0, 255, size=(1500, 3, 4, 4), dtype=np.uint8)
    per_channel = StandardScaler().fit(images.transpose(0, 2, 3, 1).reshape(-1, 3))
    np.testing.assert_allclose(standardization_of(images).deviation.ravel(), per_channel.scale_, rtol=1e-9)


def test_too_few_rows_are_refused(table: Callable[[str], Path]) -> None:
    with pytest.raises(UserError, match="2 rows are too few"):
        load_problem("mine", study_of(table("1 2\n3 4\n")), CPU)


def test_relative_paths_are_looked_up_in_the_data_folder(
    table: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = table("\n".join(f"{i} {i * i}" for i in range(40)))
    monkeypatch.setenv("ADAMQLR_DATA_DIR", str(path.parent))
    assert len(rows_in(load_problem("mine", study_of("table.txt"), CPU).test)) == 6
    with pytest.raises(UserError, match=r"other\.txt: no such file, neither in the data folder"):
        load_problem("mine", study_of("other.txt"), CPU)


def uci(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int = 768) -> tuple[StudyConfig, Path]:
    folder = tmp_path / "uci_energy"
    folder.mkdir()
    values = np.column_stack([np.arange(rows), np.arange(rows) % 7, np.arange(rows) * 2.0])
    np.savetxt(folder / "data.txt", values)
    monkeypatch.setenv("ADAMQLR_DATA_DIR", str(tmp_path))
    return parse_config({"name": "t", "datasets": ["uci_energy"], "optimizers": ["adam_untuned"]}, "t"), folder


def test_uci_rows_follow_the_permutation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, folder = uci(tmp_path, monkeypatch)
    order = np.random.default_rng(5).permutation(768)
    np.savetxt(folder / "permutation_indices.txt", order, fmt="%d")
    parts = parts_of(load_problem("uci_energy", config, CPU))
    assert [len(rows) for rows in parts] == [588, 104, 76]
    scale = StandardScaler().fit(order[:692, None].astype(float))
    for rows, part in zip(parts, np.split(order, [588, 692]), strict=True):
        expected = scale.transform(part[:, None].astype(float)).ravel()
        np.testing.assert_allclose(rows.inputs[:, 0], expected, atol=1e-5)
    (folder / "permutation_indices.txt").unlink()
    again = [rows_in(load_problem("uci_energy", config, CPU).train).inputs for _ in range(2)]
    assert torch.equal(*again)
    assert not torch.equal(again[0], parts[0].inputs)


def test_truncated_uci_tables_and_bad_permutations_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, folder = uci(tmp_path, monkeypatch, rows=500)
    with pytest.raises(UserError, match=r"data\.txt: expected 768 rows, found 500: the file is truncated"):
        load_problem("uci_energy", config, CPU)
    np.savetxt(folder / "data.txt", np.ones((768, 3)))
    no_permutation = r"not a permutation of the rows 0 … 767"
    for content, problem in (
        ("1\n1\n", no_permutation),
        ("a\n", "expected one row number a line"),
        ("0.5\n" * 768, no_permutation),
    ):
        (folder / "permutation_indices.txt").write_text(content)
        with pytest.raises(UserError, match=rf"permutation_indices\.txt: {problem}"):
            load_problem("uci_energy", config, CPU)
    (folder / "data.txt").unlink()
    with pytest.raises(UserError, match="adamqlr fetch"):
        load_problem("uci_energy", config, CPU)


def test_the_papers_split_of_the_real_tables(data_folder: Path) -> None:
    config = parse_config({"name": "t", "datasets": ["uci_energy", "uci_protein"], "optimizers": ["adam_untuned"]}, "t")
    energy, protein = (parts_of(load_problem(key, config, CPU)) for key in ("uci_energy", "uci_protein"))
    assert [len(rows) for rows in protein] == [34_983, 6_174, 4_573]
    assert energy[0].inputs.shape == (588, 8)


@pytest.mark.parametrize(
    "text", [",a,b,y\n0,1,2,3\n1,4,5,6\n", "Unnamed: 0,a,y\n0,1,2\n1,4,5\n", "\ta\ty\n0\t1\t2\n1\t4\t5\n"]
)
def test_an_index_without_a_name_is_no_feature(text: str, tmp_path: Path) -> None:
    """As pandas writes it, in order of the rows, or of the targets that they were sorted by."""
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(UserError, match=r"t\.csv: the first column has no name, .*index=False"):
        read_table(tmp_path / "t.csv")


def test_small_units_are_no_constants() -> None:
    values = np.random.default_rng(0).normal(0, 1e-13, (100, 1))
    np.testing.assert_allclose(standardization_of(values)(values).std(), 1, rtol=1e-6)
    assert standardization_of(np.zeros((5, 1))).deviation.tolist() == [[1.0]]
    assert standardization_of(np.full((5, 1), 7.1)).deviation.tolist() == [[1.0]]
