"""How commands start and end quickly, which is most of what short ones take."""

import atexit
import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def imports_uncollected() -> Iterator[None]:
    """Import without garbage collection, and leave what was imported out of later ones.

    Imports make objects by the hundred thousand and next to no garbage. Looking for it takes a seventh of the start of
    a command that uses PyTorch, and a fifth of a figure's.
    """
    if not gc.isenabled():
        yield
        return
    modules = len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        if len(sys.modules) > modules:
            gc.freeze()
        gc.enable()


class QuickExit:
    """Ends the process once all exit handlers have run, without taking down its modules one by one.

    With PyTorch that takes a third of a second, for memory that the system takes back anyway.

    Attributes:
        code: The process's exit code, but for output that cannot be written, which is no success.
    """

    def __init__(self) -> None:
        self.code = 1
        # Handlers run in reverse order: those of what is imported from here on come before it.
        atexit.register(self._leave)

    def _leave(self) -> None:
        try:
            sys.stdout.flush()
        except OSError as error:
            print(f"adamqlr: error: standard output: {error.strerror}", file=sys.stderr)
            self.code = self.code or 1
        sys.stderr.flush()
        os._exit(self.code)


@contextmanager
def scipy_hidden() -> Iterator[None]:
    """Import Seaborn as if SciPy were not installed: its statistics take longer to import than all else of a figure.

    Seaborn has them for densities and clusters, which no figure here shows. For processes of the command line only:
    others may want them.
    """
    if "scipy" in sys.modules:
        yield
        return
    sys.modules["scipy"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules["scipy"]
