"""One head process a folder: two would strike out each other's jobs in the ledger, and remove their files."""

import errno
import fcntl
from pathlib import Path
from typing import TextIO

from snakemake_interface_common.exceptions import WorkflowError

# File systems without locks.
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)


def hold_alone(path: Path) -> TextIO:
    """Lock a file; a head process that is killed leaves it unlocked.

    Returns:
        The file, locked for as long as it is open.

    Raises:
        WorkflowError: Another head process has it.
        OSError: It cannot be locked.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise WorkflowError(
            "another Snakemake sends jobs to the cluster from this folder: wait until it has ended, "
            "or start this one in a folder of its own (--directory, or another clone)"
        ) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    return file
