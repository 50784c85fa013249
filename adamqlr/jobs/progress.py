"""Progress: a bar on a terminal, plain lines in a log."""

import logging
import multiprocessing
import sys
import time

from tqdm import tqdm

from adamqlr.logs import progress_line

logger = logging.getLogger(__name__)

_SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """How far a job is, shown as a fraction with a few words.

    Args:
        label: What is being done.
    """

    def __init__(self, label: str) -> None:
        self._label = label
        self._last_line = time.monotonic()
        # Bars of several processes would overwrite each other.
        terminal = sys.stderr.isatty() and multiprocessing.parent_process() is None
        self._bar = (
            tqdm(
                total=1.0,
                desc=label,
                bar_format="{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining} {postfix}",
            )
            if terminal
            else None
        )

    def show(self, fraction: float, words: str) -> None:
        """Show how far the job is; in a log, at most every ten seconds."""
        if self._bar is not None:
            self._bar.n = min(1.0, fraction)
            self._bar.set_postfix_str(words)
        elif time.monotonic() - self._last_line > _SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            logger.info(progress_line(self._label, min(1.0, fraction), words))

    def close(self) -> None:
        """Leave the terminal's line to what comes next."""
        if self._bar is not None:
            self._bar.close()
