"""Published values: read as they stand, or refused with the line at fault."""

from pathlib import Path

import numpy as np
import pytest

from adamqlr.errors import UserError
from adamqlr.results.published import Key, published_file, read_published

HEAD = "suite,dataset,optimizer,metric,value,error\n"


def written(folder: Path, text: str) -> Path:
    path = folder / "published.csv"
    path.write_text(text)
    return path


def test_values_are_read_with_and_without_error(tmp_path: Path) -> None:
    rows = "epochs,digits,adam,test_loss,0.5,0.01\nepochs,digits,adam,test_accuracy,0.9,\n"
    found = read_published(written(tmp_path, HEAD + rows))
    assert found[Key("epochs", "digits", "adam", "test_loss")] == (0.5, 0.01)
    value, error = found[Key("epochs", "digits", "adam", "test_accuracy")]
    assert value == 0.9
    assert np.isnan(error)


def test_the_file_lies_beside_the_study_and_need_not_exist(tmp_path: Path) -> None:
    assert published_file(tmp_path) == published_file(tmp_path / "study.nc") == tmp_path / "published.csv"
    assert read_published(tmp_path / "published.csv") == {}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("dataset,value\n", r"published\.csv: expected the columns suite,dataset,optimizer,metric,value,error"),
        (HEAD + "epochs,digits,adam,loss,0.5,\n", "line 2: unknown metric 'loss': expected one of train_loss"),
        (HEAD + "epochs,digits,adam,test_loss,half,\n", "line 2: 'half' is no number"),
        (HEAD + "epochs,digits,adam,test_loss,,0.1\n", "line 2: the value is missing"),
        (HEAD + "epochs,digits,adam,test_loss\n", "line 2: the value is missing"),
        (HEAD + 2 * "epochs,digits,adam,test_loss,0.5,\n", "line 3: a second value of epochs/digits/adam/test_loss"),
    ],
)
def test_what_cannot_be_read_is_refused(text: str, problem: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=problem):
        read_published(written(tmp_path, text))
