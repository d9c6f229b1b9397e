"""What is logged of a training loop with PyTorch: the steps of each optimizer, as they come.

The first optimizer that steps in a run has the curves `train/loss` and `train/learning_rate` by
step, the second one `train-2/loss` and so on. Each rank of a distributed job logs its own; all
else is the first one's.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

from rayml.artifacts.flavours.torch import unwrap
from rayml.autologging.calls import is_own_process, spared, user_run_of_rank, warn
from rayml.autologging.curves import Curve
from rayml.autologging.ending import Task, at_end
from rayml.autologging.fits import next_fit
from rayml.autologging.options import is_asked_for
from rayml.autologging.params import shown
from rayml.autologging.torch_examples import Window
from rayml.autologging.torch_losses import take, value_of
from rayml.autologging.torch_models import keep_model, log_structure
from rayml.autologging.torch_modules import is_any_compiled, model_of, scheduler_of
from rayml.run_context import find_context

if TYPE_CHECKING:
    from types import CodeType, FrameType

    from rayml.autologging.fits import Fit
    from rayml.autologging.torch_models import KeptModel
    from rayml.run_context import Context

_EVERY_S = 1.0
_NESTED = 6  # frames between a step and one that is a part of it
_GROUPS = 5  # of parameters, whose learning rates are followed
# What is no setting of a group of parameters, or of a scheduler.
_NO_OPTIONS = frozenset(["params", "param_names", "initial_lr"])
_STATE = frozenset(["optimizer", "base_lrs", "last_epoch", "best", "num_bad_epochs"])


class Loop:
    """The steps of one optimizer in one run.

    Args:
        context: The run.
        fit: Which of its fits it is; None of what is not logged.

    Attributes:
        caller: What has called for a step, and was no other step.
        before: The same optimizer's in a run around this one.
    """

    caller: CodeType | None = None
    before: Loop | None = None

    def __init__(self, context: Context, fit: Fit | None) -> None:
        self._context = ref(context)
        self._fit = fit
        self._curves: dict[str, Curve] = {}
        self._rates: dict[int, object] = {}
        self._knows_scheduler = False
        self._wants_norm = is_asked_for("gradient_norm")
        self._steps = self._logged_steps = 0
        self._began = self._logged = self._stepped = time.time()
        self._model: KeptModel | None = None
        self._window: Window | None = None

    def of(self, context: Context) -> Loop | None:
        """Return it if it belongs to a run, or the one before that does."""
        if self._context() is context:
            return self
        return None if self.before is None else self.before.of(context)

    @property
    def is_over(self) -> bool:
        """It logs nothing any more."""
        return self._fit is None

    def begin(self, context: Context, fit: Fit, optimizer: Any) -> None:  # noqa: ANN401
        """Log what is known before the first step is; each part that fails is one warning."""
        for place, group in enumerate(optimizer.param_groups[:_GROUPS]):
            if not any(_is_same(group.get("lr"), rate) for rate in self._rates.values()):
                self._rates[place] = group.get("lr")
        self._rates = dict.fromkeys(self._rates)
        at_end(context, Task("the curves of a training", self.end, is_brief=True))
        if context.rank > 0:
            return
        with spared("the settings of an optimizer", context):
            context.log_params(settings_of(f"model{fit.suffix}/optimizer", optimizer))
            if any("initial_lr" in group for group in optimizer.param_groups):
                self._log_scheduler(context, optimizer)
        if fit.is_kept:
            with spared("the model of an optimizer", context):
                self._watch_model(context, fit, *model_of(optimizer))

    def step(self, optimizer: Any, losses: list[Any]) -> None:  # noqa: ANN401
        """Keep what a step has shown, and log it with others now and then."""
        if self._fit is None or (context := self._context()) is None:
            return
        step, self._stepped = self._steps, time.time()
        is_due = self._stepped - self._logged >= _EVERY_S
        if losses:
            self._curve("loss").add(step, self._stepped, losses)
        for place, known in self._rates.items():
            if is_due or optimizer.param_groups[place].get("lr") is not known:
                self._add_rate(context, optimizer, place)
        if self._wants_norm and (norm := _gradient_norm(optimizer)) is not None:
            self._curve("gradient_norm").add(step, self._stepped, [norm])
        self._steps += 1
        if self._window is not None and step > 0:
            self._window.close()
            self._window = None
        if is_due:
            self._log(context, self._stepped)

    def end(self) -> None:
        """Log what waits, and nothing any more."""
        context, fit, self._fit = self._context(), self._fit, None
        if self._window is not None:
            self._window.close()
        if self._model is not None:
            self._model.seconds = self._stepped - self._began
            self._model = None
        if context is None or fit is None:
            return
        for curve in self._curves.values():
            curve.end(context)
        if context.rank == 0:
            context.log_metric(f"train{fit.suffix}/steps", self._steps)

    def give_up(self) -> None:
        """Log nothing any more of a training that cannot be followed."""
        self._fit = None

    def _curve(self, name: str) -> Curve:
        if name not in self._curves and self._fit is not None:
            self._curves[name] = Curve(f"train{self._fit.suffix}/{name}")
        return self._curves[name]

    def _log(self, context: Context, now: float) -> None:
        for curve in self._curves.values():
            curve.log(context)
        if context.rank == 0 and self._fit is not None:
            speed = (self._steps - self._logged_steps) / (now - self._logged)
            name = f"train{self._fit.suffix}/steps_per_s"
            context.client.point(name, speed, self._steps - 1, now)
        self._logged, self._logged_steps = now, self._steps

    def _add_rate(self, context: Context, optimizer: Any, place: int) -> None:  # noqa: ANN401
        """Keep a learning rate that has changed, or may have: one that is in a tensor."""
        known, rate = self._rates[place], optimizer.param_groups[place].get("lr")
        if not _is_tensor(rate) and _is_same(rate, known):
            return
        if known is not None and not self._knows_scheduler and context.rank == 0:
            self._log_scheduler(context, optimizer)
        self._rates[place] = rate
        if (value := value_of(rate) if _is_tensor(rate) else float(rate)) is not None:
            name = "learning_rate" if place == 0 else f"learning_rate-{place + 1}"
            self._curve(name).add(self._steps, self._stepped, [value])

    def _log_scheduler(self, context: Context, optimizer: Any) -> None:  # noqa: ANN401
        self._knows_scheduler = True
        if self._fit is not None and (scheduler := scheduler_of(optimizer)) is not None:
            prefix = f"model{self._fit.suffix}/scheduler"
            context.log_params(scheduler_settings(prefix, scheduler))

    def _watch_model(self, context: Context, fit: Fit, outer: Any, others: bool) -> None:  # noqa: ANN401, FBT001 - as `model_of` tells
        if outer is None:
            return
        if others:
            warn("keeps one model of an optimizer that has several; log others yourself", context)
        model = unwrap(outer)
        log_structure(context, fit, model)
        self._model = keep_model(context, fit, model)
        if self._model is not None and not is_any_compiled():
            self._window = Window(outer, self._tell_example)

    def _tell_example(self, shape: list[int], rows: Any) -> None:  # noqa: ANN401
        context = self._context()
        if context is not None and self._fit is not None and self._model is not None:
            context.log_param(f"train{self._fit.suffix}/batch_shape", shape)
            self._model.example = rows


_loops: WeakKeyDictionary[Any, Loop] = WeakKeyDictionary()


def stepped(optimizer: Any, frame: FrameType | None) -> None:  # noqa: ANN401
    """Log a step that an optimizer has done in a run, where user code makes it do so."""
    context = loop = None
    try:
        context, loop = find_context(), _loops.get(optimizer)
        if context is None or frame is None or not is_own_process() or _is_part(frame, loop):
            return
        losses, last = take(context), loop
        loop = None if last is None else last.of(context)
        if loop is None:
            loop = _loops[optimizer] = _begin(context, optimizer, frame)
            loop.before = None if last is None or last.is_over else last
        # This one's steps have several, of which the first is what a step begins with.
        is_search = isinstance(optimizer, sys.modules["torch"].optim.LBFGS)
        loop.step(optimizer, losses[:1] if is_search else losses)
    except Exception as exc:
        with spared("the steps of an optimizer", context):
            if loop is not None:
                loop.give_up()
            raise exc  # noqa: TRY201 - it is none any more here


def leave_out(context: Context, optimizer: Any) -> None:  # noqa: ANN401
    """Log nothing of an optimizer's steps in a run until `take_back`: another hook does."""
    loop = Loop(context, None)
    loop.before = _loops.get(optimizer)
    _loops[optimizer] = loop


def take_back(optimizer: Any) -> None:  # noqa: ANN401
    """Undo `leave_out`."""
    loop = _loops.pop(optimizer, None)
    if loop is not None and loop.before is not None:
        _loops[optimizer] = loop.before


def _is_part(frame: FrameType, loop: Loop | None) -> bool:
    """Tell whether a step is a part of another: distributed optimizers have one inside."""
    above = frame.f_back
    if loop is not None and above is not None and above.f_code is loop.caller:
        return False
    code, calls = frame.f_code, above
    for _ in range(_NESTED):
        if calls is not None:
            if calls.f_code is code:
                return True
            calls = calls.f_back
    if loop is not None and above is not None:
        loop.caller = above.f_code
    return False


def _begin(context: Context, optimizer: Any, frame: FrameType | None) -> Loop:  # noqa: ANN401
    fit = next_fit(context) if user_run_of_rank(frame) is not None else None
    loop = Loop(context, fit)
    if fit is not None:
        loop.begin(context, fit, optimizer)
    return loop


def settings_of(prefix: str, optimizer: Any) -> dict[str, object]:  # noqa: ANN401
    """Return the class, the first group's options, and what differs in others'."""
    first, *others = map(_options, optimizer.param_groups)
    told: dict[str, object] = {f"{prefix}/class": type(optimizer).__qualname__}
    told |= {f"{prefix}/{name}": value for name, value in shown(first).items()}
    for number, options in enumerate(others[: _GROUPS - 1], start=2):
        changed = {name: value for name, value in options.items() if first.get(name) != value}
        named = {f"{prefix}/group-{number}/{name}": v for name, v in shown(changed).items()}
        told |= named
    return told | ({f"{prefix}/groups": len(others) + 1} if others else {})


def _options(group: dict[str, Any]) -> dict[str, object]:
    """Return what a group was given: with a scheduler, the rate that this began with."""
    given = {name: value for name, value in group.items() if name not in _NO_OPTIONS}
    if "lr" in given:
        given["lr"] = group.get("initial_lr", given["lr"])
    numbers = {name: value_of(v) if _is_tensor(v) else v for name, v in given.items()}
    return {name: value for name, value in numbers.items() if value is not None}


def scheduler_settings(prefix: str, scheduler: Any) -> dict[str, object]:  # noqa: ANN401
    """Return the class, and what it was made with."""
    given = vars(scheduler).items()
    told = {name: v for name, v in given if not name.startswith("_") and name not in _STATE}
    if parts := vars(scheduler).get("_schedulers"):
        told["schedulers"] = [type(part).__qualname__ for part in parts]
    named = {f"{prefix}/{name}": value for name, value in shown(told).items()}
    return {f"{prefix}/class": type(scheduler).__qualname__, **named}


def _gradient_norm(optimizer: Any) -> Any:  # noqa: ANN401
    """Return the norm of all gradients; None where some are spread over processes, or sparse."""
    torch: Any = sys.modules["torch"]
    parameters = (one for group in optimizer.param_groups for one in group["params"])
    gradients = [one.grad for one in parameters if one.grad is not None]
    plain = [one for one in gradients if type(one) is torch.Tensor and one.layout is torch.strided]
    if not plain or len(plain) < len(gradients):
        return None
    return value_of(torch.nn.utils.get_total_norm(plain))


def _is_tensor(value: object) -> bool:
    return isinstance(value, sys.modules["torch"].Tensor)


def _is_same(one: object, other: object) -> bool:
    return one is other or (not _is_tensor(one) and not _is_tensor(other) and one == other)
