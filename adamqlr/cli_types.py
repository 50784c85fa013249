"""What users type for files, seeds and shards."""

from pathlib import Path
from typing import Any

import click

FILE = click.Path(dir_okay=False, path_type=Path)


# Earlier versions of click have no generic types.
class SeedRange(click.ParamType):  # type: ignore[type-arg]
    """Seeds written as ``0-9``, ``3`` or ``0,2,5-7``."""

    name = "seeds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[int]:
        """Return the seeds in the order given."""
        seeds: list[int] = []
        for part in str(value).split(","):
            first, _, last = part.partition("-")
            if not first.isdigit() or not (last or first).isdigit():
                self.fail(f"{value!r} is not like 0-9 or 0,2,5-7", param, ctx)
            seeds.extend(range(int(first), int(last or first) + 1))
        if not seeds or len(set(seeds)) < len(seeds):
            self.fail(f"{value!r} holds no seed, or one twice", param, ctx)
        return seeds


class ShardNumber(click.ParamType):  # type: ignore[type-arg]
    """A shard written as ``k/K``."""

    name = "k/K"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """Return k and K."""
        index, _, count = str(value).partition("/")
        if not (index.isdigit() and count.isdigit() and int(index) < int(count)):
            self.fail(f"{value!r} is not k/K with 0 <= k < K", param, ctx)
        return int(index), int(count)
