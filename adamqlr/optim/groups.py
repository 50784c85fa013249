"""Parameter groups: what is in each, what all have in common, and their weight decay."""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from torch import Tensor, nn

from adamqlr.optim.flat import FlatParameters
from adamqlr.optim.options import check_common
from adamqlr.optim.state import CANNOT_JOIN

_Groups = Sequence[Mapping[str, Any]]


class Groups:
    """The groups as they were when the parameters were laid out.

    Args:
        groups: An optimizer's ``param_groups``.
        flat: The parameters that are trained.

    Attributes:
        indices: For each group, the places in θ of its parameters that are trained.
    """

    def __init__(self, groups: _Groups, flat: FlatParameters) -> None:
        self._flat, self._ids = flat, _ids_in(groups)
        places = {id(parameter): place for place, parameter in enumerate(flat.parameters)}
        self.indices = [sorted(places[one] for one in ids if one in places) for ids in self._ids]

    def have_changed(self, groups: _Groups, has_started: bool) -> bool:
        """Tell whether somebody has moved parameters between groups, or taken some out.

        Args:
            groups: As they are now.
            has_started: Whether steps have been taken.

        Returns:
            True if so; all is then to be laid out anew.

        Raises:
            ValueError: There are parameters among them that have not been there.
        """
        ids = _ids_in(groups)
        if ids == self._ids:
            return False
        if not set(chain(*self._ids)).issuperset(chain(*ids)):
            if has_started:
                raise ValueError(f"parameters {CANNOT_JOIN}")
            raise ValueError("parameters were put into param_groups: use add_param_group, which sees what they are")
        return True

    def replace(self, replaced: Mapping[nn.Parameter, nn.Parameter]) -> None:
        """Take new parameters for old ones."""
        ids = {id(old): id(new) for old, new in replaced.items()}
        self._ids = [[ids.get(one, one) for one in group] for group in self._ids]

    def decay(self, groups: _Groups, theta: Tensor) -> None:
        """Move θ by −weight_decay · ``theta``, each group by its own."""
        if len(groups) == 1:
            self._flat.buffer.sub_(theta, alpha=groups[0]["weight_decay"])
            return
        views, before = self._flat.views(self._flat.buffer), self._flat.views(theta)
        for group, indices in zip(groups, self.indices, strict=True):
            if group["weight_decay"] != 0:
                for index in indices:
                    views[index].sub_(before[index], alpha=group["weight_decay"])


def check_alike(groups: _Groups, names: Sequence[str]) -> None:
    """Refuse groups that differ in options that are one for all.

    Raises:
        ValueError: Some do.
    """
    for number, group in enumerate(groups[1:], start=1):
        check_common(names, number, group, groups[0])


def _ids_in(groups: _Groups) -> list[list[int]]:
    return [list(map(id, group["params"])) for group in groups]
