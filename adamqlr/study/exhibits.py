"""What a study shows: figures and tables, before they are made."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Exhibit(NamedTuple):
    """One figure, or one table.

    Attributes:
        title: Its name in the report.
        caption: What it shows.
        maker: ``module:function`` that makes it from the study's results and a suite.
        options: Further arguments of the maker.
        part: The group of the study's results that it needs, where it is not the suite.
        published: What others published that it shows beside them, by what it is of.
    """

    title: str
    caption: str
    maker: str
    options: Mapping[str, Any] = {}
    part: str | None = None
    published: Mapping[Any, Any] = {}
