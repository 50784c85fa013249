"""What all optimizers have in common: a step that sees the minibatch, and one flat vector of parameters."""

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import increment_version

from adamqlr.optim.flat import FlatParameters
from adamqlr.optim.groups import Groups, check_alike
from adamqlr.optim.memory import check_memory
from adamqlr.optim.options import MadeWith, SeenOptions, check_common, require
from adamqlr.optim.passes import network_of
from adamqlr.optim.passes.given_loss import check_untouched, resolve_loss
from adamqlr.optim.passes.losses import Loss
from adamqlr.optim.passes.network import Forward, Network, call_model, count_rows, has_rows
from adamqlr.optim.passes.perceptron import members_of
from adamqlr.optim.passes.union import Processes
from adamqlr.optim.preconditions import check_messages, check_same_model, check_surroundings
from adamqlr.optim.state import CANNOT_JOIN, State, in_todays_form
from adamqlr.optim.structure import Structure, check_trainable, named_parameters_of, unwrapped
from adamqlr.optim.torch_private import never_compiled, step_is_watched, without_compiler

Params = Iterable[nn.Parameter] | Iterable[dict[str, Any]]
AnyLoss = str | nn.Module | Loss | Callable[[Tensor, Any], Tensor]

_add_param_group = without_compiler(torch.optim.Optimizer.add_param_group)
_state_dict = without_compiler(torch.optim.Optimizer.state_dict)
_load_state_dict = without_compiler(torch.optim.Optimizer.load_state_dict)


class MinibatchOptimizer(torch.optim.Optimizer, ABC):
    """An optimizer whose step sees the minibatch and runs the passes itself.

    PyTorch wraps ``step`` of every optimizer with a profiler's record and hooks, which takes a tenth of a small
    network's step; here that is left out unless a profiler runs or a hook is registered.

    Args:
        model: The module to train, or a ``DistributedDataParallel`` around it.
        loss: A name, a ``torch.nn`` loss, a function, or a :class:`~adamqlr.optim.passes.losses.Loss`.
        defaults: Options of the parameter groups.
        params: What to train, as for any optimizer of PyTorch's; None for all that is trainable.
        forward: How the model is called with the inputs; returns what the loss takes.
        microbatch: Rows that go through the model at a time; None for all.
        process_group: Processes with other parts of every minibatch; ``"local"`` for none although there are several.
    """

    model, loss = MadeWith(), MadeWith()
    # Options that parameter groups may differ in.
    _of_a_group: frozenset[str] = frozenset()
    # Those for which groups hold a tensor that all of them share.
    _replaced_in_groups: frozenset[str] = frozenset()

    def __init__(
        self,
        model: nn.Module,
        loss: AnyLoss,
        defaults: dict[str, Any],
        *,
        params: Params | None = None,
        forward: Forward | None = None,
        microbatch: int | None = None,
        process_group: Any = None,
    ) -> None:
        whole = type(microbatch) is int and microbatch >= 1
        require(microbatch is None or whole, "microbatch", "a whole number, 1 or more, or None", microbatch)
        self.__dict__.update(model=model, loss=resolve_loss(loss))
        self._module, group = unwrapped(model)
        check_trainable(self._module)
        is_local = process_group == "local"
        self._process_group = None if is_local else process_group or group
        self._is_alone = self._process_group is None and not is_local
        self._align_buffers = getattr(model, "broadcast_buffers", False)
        self._forward, self._microbatch = forward or call_model, microbatch
        self._takes_all = params is None
        self._made = self._started = False
        trained = [p for p in self._module.parameters() if p.requires_grad] if params is None else params
        if params is None and not trained:
            raise ValueError("the model has no trainable parameters")
        super().__init__(trained, defaults)
        self._align_model()
        self._made = True
        self._lay_out()

    # Laying out: once in the beginning, and again where the model or the state has become another.

    def _lay_out(self, loaded: Mapping[str, Any] | None = None) -> None:
        if torch.is_inference_mode_enabled():
            raise RuntimeError("make optimizers and load states outside torch.inference_mode, whose tensors stay")
        wanted = [parameter for group in self.param_groups for parameter in group["params"]]
        self._named = named_parameters_of(self._module, wanted)
        trained = [(name, parameter) for name, parameter in self._named.items() if parameter.requires_grad]
        if not trained:
            raise ValueError("the model has no trainable parameters")
        for parameter in self._named.values():
            if not parameter.requires_grad:
                parameter.grad = None
        members = members_of(self._module)
        # Where nothing has moved, others' views of the parameters go on to show them.
        known = self.__dict__.get("_flat")
        if known and known.holds(trained):
            self._flat = known
        else:
            check_memory(self._module, [name for name, _ in trained])
            self._flat = FlatParameters(trained, members)
        self._structure = Structure(self._module)
        self._network: Network = network_of(
            self._module,
            self.loss,
            self._flat,
            forward=self._forward,
            microbatch=self._microbatch,
            processes=None if self._process_group is None else Processes(self._process_group),
            align_buffers=self._align_buffers,
        )
        self._groups = Groups(self.param_groups, self._flat)
        self._options = SeenOptions(self.defaults, self._checked)
        self._state = State(self, self._flat, loaded, self._started)
        self._bind(self._state)
        self._state.settle()

    @abstractmethod
    def _bind(self, state: State) -> None:
        """Take up what outlives a step."""

    def _checked(self, options: dict[str, Any]) -> dict[str, Any]:
        """Return a group's options in the form that steps take; a ValueError where one is out of its range."""
        return options

    def _align_model(self) -> None:
        """Begin with the first process's model, as DistributedDataParallel does, with what is frozen and buffers."""
        if self._process_group is not None:
            tensors = chain(self._module.parameters(), self._module.buffers())
            Processes(self._process_group).align([one.data for one in tensors if one.layout == torch.strided])

    def _follow_model(self) -> None:
        """Notice what has become of the model, and of the state, since the last step."""
        is_as_laid_out = not self._groups.have_changed(self.param_groups, self._started) and self._state.is_shown()
        if self._structure.is_unchanged() and self._flat.is_bound():
            if not is_as_laid_out:
                # What now stands there counts, such as what was kept elsewhere meanwhile.
                self._lay_out()
            return
        check_trainable(self._module)
        named = dict(self._module.named_parameters())
        check_same_model(named, self._named, self._flat, self._takes_all)
        self._follow_parameters()
        if self._started:
            self._state.follow_freezing({name: named[name] for name in self._named})
        self._lay_out()

    def _follow_parameters(self) -> bool:
        """Take up what stands in the place of parameters; return whether there is any, and all is to be laid out."""
        named = dict(self._module.named_parameters())
        stood = {old: named.get(name, old) for name, old in self._named.items()}
        replaced = {old: new for old, new in stood.items() if new is not old}
        self._replace(replaced)
        return bool(replaced)

    def _replace(self, replaced: Mapping[nn.Parameter, nn.Parameter]) -> None:
        """Let new parameters stand for old ones, state included."""
        for group in self.param_groups:
            group["params"] = [replaced.get(parameter, parameter) for parameter in group["params"]]
        self._groups.replace(replaced)
        for old, new in replaced.items():
            if old in self.state:
                self.state[new] = self.state.pop(old)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Train further parameters of the model, with options of their own.

        Raises:
            ValueError: Steps have been taken, and state that is common to all parameters would be wrong for new ones.
        """
        if self._started:
            raise ValueError(f"parameters {CANNOT_JOIN}")
        if self.param_groups:
            # Later it cannot be told what was given.
            check_common(self._replaced_in_groups, len(self.param_groups), param_group, self.param_groups[0])
        if self._made:
            self._follow_parameters()
        _add_param_group(self, param_group)
        if self._made:
            try:
                self._lay_out()
            except ValueError:
                del self.param_groups[-1]
                raise

    # Steps.

    @property
    def capturable(self) -> bool:
        """Whether all steps run the same kernels, so that one can be captured and replayed."""
        # Somebody else's subclass may do anything between them.
        return type(self).__module__.partition(".")[0] == __name__.partition(".")[0]

    def step(self, inputs: Any = None, targets: Any = None, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Take one step on a minibatch: forward and backward passes, and the update.

        Args:
            inputs: What the model is called with: a tensor, a tuple for several, a dict for keywords, or anything that
                ``forward`` takes. The first dimension is the batch.
            targets: What the loss compares the outputs with.
            closure: Called first, for trainers that wrap one around every step; it computes no gradients.

        Returns:
            What the step found, as 0-d tensors on the parameters' device.

        Raises:
            TypeError: It is called like an optimizer that sees gradients only.
            ValueError: The minibatch is empty, or the model has become another.
            RuntimeError: It is taken where gradients or derivatives cannot be had, such as in inference mode.
        """
        if targets is None:
            raise TypeError(
                f"{type(self).__name__} computes the loss and its gradient itself: call "
                "optimizer.step(inputs, targets) instead of loss.backward() and optimizer.step(); where the loss "
                "takes no targets, any tensor does, such as the inputs"
            )
        if closure is not None:
            if not callable(closure):
                raise TypeError(
                    f"step takes inputs, targets and a closure, got a {type(closure).__name__} for the latter: several "
                    "inputs are one tuple, as in step((x, y), targets)"
                )
            closure()
        if step_is_watched(self):
            return self._watched_step(inputs, targets)
        return self._checked_step(inputs, targets)

    step = never_compiled(step)
    # PyTorch takes a step with this mark for one that it has wrapped.
    step.hooked = True  # type: ignore[attr-defined]

    @torch.optim.Optimizer.profile_hook_step
    def _watched_step(self, inputs: Any, targets: Any) -> Any:
        return self._checked_step(inputs, targets)

    def _checked_step(self, inputs: Any, targets: Any) -> Any:
        is_known = isinstance(inputs, Tensor) and inputs.numel() > 0
        if not is_known and (self._forward is call_model or has_rows(inputs)):
            count_rows(inputs)
        check_surroundings(self._is_alone)
        if self._process_group is not None and self.model is not self._module:
            check_messages(self.model)
        check_untouched(self.loss)
        self._follow_model()
        self._options.look(self.param_groups)
        if len(self.param_groups) > 1:
            check_alike(self.param_groups, [name for name in self.defaults if name not in self._of_a_group])
        has_started, self._started = self._started, True
        try:
            info = self._take_step(inputs, targets)
        except Exception:
            # A first step that ends in the model, as with inputs of another shape, is none.
            self._started = has_started or self._network.gradient.is_known
            raise
        # Graphs that somebody still holds must not be differentiated at other parameters than they were made with.
        increment_version(self._flat.parameters)
        return info

    @abstractmethod
    def _take_step(self, inputs: Any, targets: Any) -> Any:
        """Take the step itself."""

    zero_grad = without_compiler(torch.optim.Optimizer.zero_grad)

    # State.

    def state_dict(self) -> dict[str, Any]:
        """Return what :meth:`load_state_dict` takes up again."""
        return {**_state_dict(self), "has_started": self._started}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the state that ``state_dict`` returned; the run then continues to the same numbers.

        Raises:
            ValueError: It is of another optimizer, or of other parameters. Everything is then as before.
        """
        self._follow_parameters()
        # PyTorch puts others in their places, and leaves these alone.
        before = self.state, self.param_groups, self._started
        try:
            self._load(state_dict)
        except Exception:
            self.state, self.param_groups, self._started = before
            with torch.inference_mode(False):
                self._lay_out()
            raise

    def _load(self, state_dict: dict[str, Any]) -> None:
        """Take up a saved state, or raise an error halfway."""
        _load_state_dict(self, in_todays_form(state_dict, self._flat))
        for group in self.param_groups:
            for name, value in self.defaults.items():
                group.setdefault(name, value)
        # Earlier versions, and tools that keep nothing else than state and groups, do not say so.
        self._started = state_dict.get("has_started", True)
        self._lay_out(state_dict)

    def __getstate__(self) -> dict[str, Any]:
        """Return what pickling and copying keep: everything but the layout, which is made anew."""
        if self._follow_parameters():
            self._lay_out()
        derived = {"_flat", "_structure", "_network", "_state", "_options", "_named", "_groups", "step"}
        kept = {k: v for k, v in self.__dict__.items() if k not in derived and not k.startswith("_optimizer_")}
        # Views would be written with all of the buffer that they are views of, once each.
        state = {p: {k: v.clone() if isinstance(v, Tensor) else v for k, v in s.items()} for p, s in self.state.items()}
        return {**kept, "state": defaultdict(dict, state)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take up such a state; PyTorch also calls this to load groups and state alone."""
        super().__setstate__(state)
        if "model" in state:
            self._lay_out()
