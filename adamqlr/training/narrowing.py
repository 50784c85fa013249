"""Leaving runs out of several side by side: the state that the others go on from."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

State = Mapping[str, Any]


def state_of(state: State, members: Sequence[int], like: State) -> dict[str, Any]:
    """Return the state of some of several runs side by side.

    Args:
        state: Of all of them, as :meth:`adamqlr.training.run.Run.state_dict` returned it.
        members: Which ones.
        like: The state of new runs of these specifications: side by side, or of a single one as a run of its own.
    """
    is_alone = "epoch" in like["batches"]

    def taken(value: Any) -> Any:
        # Numbers of no dimension are common to all.
        if not isinstance(value, Tensor) or value.dim() == 0:
            return value
        return value[members[0]] if is_alone else value[list(members)]

    epochs = [state["batches"]["epochs"][member] for member in members]
    position = state["batches"]["position"]
    optimizer, own_groups = state["optimizer"], like["optimizer"]["param_groups"]
    return {
        **state,
        "histories": [state["histories"][member] for member in members],
        "batches": {"epoch": epochs[0], "position": position} if is_alone else {"epochs": epochs, "position": position},
        "model": {name: taken(value) for name, value in zip(like["model"], state["model"].values(), strict=True)},
        "optimizer": {
            "state": {
                index: {name: taken(value) for name, value in known.items()}
                for index, known in optimizer["state"].items()
            },
            "param_groups": [
                {name: _option(taken(value), own.get(name, value)) for name, value in group.items()}
                for group, own in zip(optimizer["param_groups"], own_groups, strict=True)
            ],
        },
    }


def _option(found: Any, own: Any) -> Any:
    """Return what stands in a parameter group: state as it was found, an option of each run's as it was given."""
    is_of_each = isinstance(found, (Tensor, tuple, list))
    return found if isinstance(own, Tensor) or not is_of_each else own
