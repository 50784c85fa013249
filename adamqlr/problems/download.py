"""Downloads: the only place that touches the network."""

from pathlib import Path

import pooch

from adamqlr.errors import UserError


def download(path: Path, url: str, checksum: str) -> None:
    """Bring a file to ``path``, if it is not there."""
    if path.is_file():
        return
    try:
        # pooch writes under a temporary name and moves the file into place once its checksum is right.
        pooch.retrieve(url, checksum, fname=path.name, path=path.parent, progressbar=True)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: cannot be downloaded from {url} ({reason}); it can be put there by hand") from error
