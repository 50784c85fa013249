"""Commands start without garbage collection and end without taking themselves down, and nobody notices."""

import gc
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from adamqlr.startup import imports_uncollected, scipy_hidden


class _BrokenModuleError(Exception):
    pass


def test_imports_are_not_collected_then_or_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "imported_uncollected.py").write_text("made = [[] for _ in range(1000)]")
    monkeypatch.syspath_prepend(tmp_path)
    frozen = gc.get_freeze_count()
    with imports_uncollected():
        assert not gc.isenabled()
    assert gc.get_freeze_count() == frozen, "there was nothing to import"
    with imports_uncollected():
        importlib.import_module("imported_uncollected")
    try:
        assert gc.isenabled()
        assert gc.get_freeze_count() >= frozen + 1000
    finally:
        gc.unfreeze()


def test_garbage_is_collected_after_an_import_that_fails() -> None:
    with pytest.raises(_BrokenModuleError), imports_uncollected():
        raise _BrokenModuleError
    gc.unfreeze()
    assert gc.isenabled()


def test_who_collects_no_garbage_goes_on_without() -> None:
    gc.disable()
    try:
        with imports_uncollected():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def ending(program: str, **options: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", f"import atexit, sys\nfrom adamqlr.startup import QuickExit\n{program}"]
    return subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=60, **options)  # type: ignore[call-overload]


@pytest.mark.parametrize("code", [0, 3])
def test_exit_handlers_run_and_output_is_written_before_the_end(code: int) -> None:
    program = "ending = QuickExit(); atexit.register(print, 'handled'); print('said', end=' ')\n"
    program += f"class Late:\n    def __del__(self): print('taken down')\nlate = Late()\nending.code = {code}"
    done = ending(program, stdout=subprocess.PIPE)
    assert (done.returncode, done.stdout) == (code, "said handled\n")


def test_an_error_that_nobody_expected_is_shown_and_ends_in_one() -> None:
    done = ending("ending = QuickExit(); raise ValueError('unexpected')")
    assert done.returncode == 1
    assert done.stderr.endswith("ValueError: unexpected\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_output_that_cannot_be_written_is_no_success(monkeypatch: pytest.MonkeyPatch) -> None:
    # Else it would be noticed at once.
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    with open("/dev/full", "w") as full:
        done = ending("ending = QuickExit(); print('lost'); ending.code = 0", stdout=full)
    assert (done.returncode, done.stderr) == (1, "adamqlr: error: standard output: No space left on device\n")


def test_scipy_is_hidden_and_found_again() -> None:
    program = "from adamqlr.startup import scipy_hidden\nwith scipy_hidden():\n    import seaborn\n"
    program += "assert 'scipy' not in sys.modules\nimport scipy.stats\nwith scipy_hidden():\n    import scipy.special"
    assert ending(program).returncode == 0


def test_scipy_stays_where_it_was_imported() -> None:
    scipy = pytest.importorskip("scipy")
    with scipy_hidden():
        assert sys.modules["scipy"] is scipy
