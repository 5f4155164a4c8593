"""How far a stage is: a bar on a terminal, one line per interval in a log file.

Showing progress must not slow the steps. A Keras callback that looks at every batch
normally ends the asynchronous dispatch of the JAX backend; here `async_safe` tells
Keras that the callback may run behind, and all it does per batch is to store a number.
Metrics are read at the end of an interval only, never from a batch: reading one waits
for the device.
"""

from __future__ import annotations

import atexit
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import ClassVar, TypeVar

import keras
import rich.console
import rich.live
import rich.progress
import rich.progress_bar
import rich.table
import rich.text

from tflearn.support import console as terminal
from tflearn.support.units import count_text, duration_text

T = TypeVar("T")

_REFRESHES_PER_SECOND = 5
_BAR_WIDTH = 40
_BLOCKS = "▁▂▃▄▅▆▇█"


class Progress(keras.callbacks.Callback):
    """Shows how far training is, at what pace, and how good.

    On a terminal it is a bar with the course of loss and metric; elsewhere it is one
    line an interval, printed once the interval has been validated:
    `tune  step 216/648   33%  loss 0.412  val_accuracy 0.861  7.2 steps/s  eta 1m 2s`.

    Args:
        total_steps: Where training ends.
        description: What is trained, such as the name of the stage.
        start_step: Where training starts; above 0 when it is resumed.
        interval_steps: Steps in what Keras calls an epoch; by default what `fit`
            says.
        history: The list that grows by one row an interval, with the row's `step`,
            the training metrics, and validation metrics as `val_...`. Without it the
            metrics are those that Keras gives at the end of an epoch.
        metric: The metric shown beside the loss; by default the first one of the
            validation, else of training.
        console: Where to; the terminal by default.

    Example:

    >>> import keras, numpy as np
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> x, y = np.zeros((8, 2)), np.zeros((8, 1))
    >>> shown = Progress(8, description="tune")
    >>> history = model.fit(
    ...     x, y, batch_size=2, epochs=2, verbose=0, callbacks=[shown]
    ... )  # doctest: +ELLIPSIS
    tune  step 4/8   50%  loss 0.000...
    tune  step 8/8  100%  loss 0.000...
    """

    # Keras may call `on_train_batch_end` from a thread, behind the device's work.
    async_safe = True

    _active: ClassVar[Progress | None] = None

    def __init__(
        self,
        total_steps: int,
        *,
        description: str,
        start_step: int = 0,
        interval_steps: int | None = None,
        history: Sequence[Mapping[str, float]] = (),
        metric: str = "",
        console: rich.console.Console | None = None,
    ) -> None:
        """Shows nothing yet; see the class for the arguments."""
        super().__init__()
        self._total = total_steps
        self._description = description
        self._start = start_step
        self._interval_steps = interval_steps
        self._history = history
        self._metric = metric
        self._console = console or terminal.console
        self._step = self._base = start_step
        self._logs: dict[str, float] = {}
        self._rows: list[dict[str, float]] = [dict(row) for row in history]
        self._pending = False
        self._phase = "compiling"
        self._pace = _Pace()
        self._live: rich.live.Live | None = None

    def on_train_begin(self, logs: Mapping[str, float] | None = None) -> None:
        """Starts the clock and opens the bar; a second `fit` goes on with the steps."""
        self._start = self._base = self._step
        self._pace.begin()
        if self._console.is_terminal:
            self._open()

    def on_epoch_begin(
        self, epoch: int, logs: Mapping[str, float] | None = None
    ) -> None:
        """Shows the interval that ended, validation included, and starts the next."""
        self._flush()
        self._base = self._start + epoch * self._steps_per_interval()
        self._pace.resume(self._base, warm=epoch > 0)
        self._phase = "training" if epoch else "compiling"

    def on_train_batch_end(
        self, batch: int, logs: Mapping[str, float] | None = None
    ) -> None:
        """Stores the step. `logs` stay untouched: reading them waits for the device."""
        if self._phase == "compiling":
            self._phase = "training"
            self._pace.resume(self._base + batch + 1, warm=True)
        # Threads of Keras may finish in another order than they started.
        self._step = max(self._step, self._base + batch + 1)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Keeps the interval's metrics until its validation is done."""
        done = self._start + (epoch + 1) * self._steps_per_interval()
        self._step = min(done, self._total)
        self._pace.pause(self._step)
        self._logs = dict(logs or {})
        self._pending = True
        self._phase = "validating"

    def on_train_end(self, logs: Mapping[str, float] | None = None) -> None:
        """Shows the last interval and leaves the bar as it is."""
        self._phase = "done"
        self._flush()
        self.close()

    def close(self) -> None:
        """Gives the terminal back; for a `finally` where training may fail."""
        if self._live is not None:
            self._live.stop()
            self._live = None
            atexit.unregister(self.close)
        if Progress._active is self:
            Progress._active = None

    def _open(self) -> None:
        # A run that failed may have left its bar; two bars would fight for the lines.
        if Progress._active is not None:
            Progress._active.close()
        Progress._active = self
        self._live = rich.live.Live(
            get_renderable=self._render,
            console=self._console,
            refresh_per_second=_REFRESHES_PER_SECOND,
        )
        # Without this, a failure would leave the terminal without a cursor.
        atexit.register(self.close)
        self._live.start()

    def _steps_per_interval(self) -> int:
        return (self.params or {}).get("steps") or self._interval_steps or 1

    def _flush(self) -> None:
        if not self._pending:
            return
        self._pending = False
        last = self._history[-1] if self._history else {}
        validated = last.get("step") == self._step
        self._rows.append(dict(last) if validated else self._logs)
        if not self._console.is_terminal:
            self._console.print(self._line(), markup=False, soft_wrap=True)

    def _line(self) -> str:
        width = len(str(self._total))
        names = self._names()
        values = [f"{name} {_number(self._rows[-1].get(name))}" for name in names]
        return "  ".join(
            [
                self._description,
                f"step {self._step:>{width}}/{self._total}",
                f"{self._percent():>3}%",
                *values,
                *self._times(),
            ]
        )

    def _percent(self) -> int:
        return 100 * self._step // max(self._total, 1)

    def _times(self) -> list[str]:
        parts = []
        rate = self._pace.rate(self._step)
        if rate is not None:
            parts.append(
                f"{rate:.3g} steps/s" if rate < 100 else f"{rate:,.0f} steps/s"
            )
        if self._phase == "done":
            return [*parts, f"took {duration_text(self._pace.elapsed)}"]
        intervals = (self._total - self._step) / self._steps_per_interval()
        eta = self._pace.eta(self._step, self._total, intervals=intervals)
        return parts if eta is None else [*parts, f"eta {duration_text(eta)}"]

    def _names(self) -> list[str]:
        """Names of the columns shown: the loss and one metric."""
        if not self._rows:
            return []
        row = self._rows[-1]
        others = [name for name in row if name not in ("step", "loss", "val_loss")]
        validation = [name for name in others if name.startswith("val_")]
        chosen = [self._metric] if self._metric in row else (validation or others)[:1]
        return [name for name in ("loss", *chosen) if name in row]

    def _render(self) -> rich.console.RenderableType:
        bar = rich.progress_bar.ProgressBar(
            total=self._total,
            completed=self._step,
            width=min(_BAR_WIDTH, max(10, self._console.width - 60)),
            pulse=self._phase == "compiling",
        )
        top = rich.table.Table.grid(padding=(0, 2))
        top.add_row(
            rich.text.Text(self._description, style="bold", no_wrap=True),
            bar,
            rich.text.Text(f"{self._step}/{self._total}", style="bold"),
            rich.text.Text(f"{self._percent()}%", style="cyan"),
            *[
                rich.text.Text(part, style="dim", no_wrap=True)
                for part in self._times()
            ],
        )
        return rich.console.Group(top, self._course())

    def _course(self) -> rich.text.Text:
        """The second line: what goes on, and how loss and metric went."""
        text = rich.text.Text(overflow="ellipsis", no_wrap=True)
        for name in self._names():
            values = [row[name] for row in self._rows if name in row]
            text.append(f"{name} ", style="dim").append(_number(values[-1]))
            text.append(f" {_sparkline(values)}  ", style="green")
        if self._phase in ("compiling", "validating"):
            text.append(f"{self._phase} …", style="yellow")
        return text


def track(
    items: Iterable[T],
    *,
    total: int | None,
    description: str,
    size: Callable[[T], int] = lambda _: 1,
    unit: str = "examples",
    console: rich.console.Console | None = None,
) -> Iterator[T]:
    """Passes items on and shows how many are done.

    On a terminal a bar that vanishes at the end; in both cases one line at the end.

    Args:
        items: What to go through, such as batches.
        total: Number of units in all; None if unknown.
        description: What is done, such as `evaluate test`.
        size: Number of units in an item.
        unit: What is counted.
        console: Where to; give one on standard error where standard output carries
            results.

    Yields:
        The items.

    Example:

    >>> batches = track([[1, 2], [3]], total=3, description="evaluate", size=len)
    >>> sum(map(sum, batches))  # doctest: +ELLIPSIS
    evaluate  3 examples  ...
    6
    """
    shown = console or terminal.console
    started = time.perf_counter()
    done = 0
    with rich.progress.Progress(
        rich.progress.TextColumn("[bold]{task.description}", markup=True),
        rich.progress.BarColumn(),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TextColumn(unit, markup=False),
        rich.progress.TimeRemainingColumn(compact=True),
        console=shown,
        transient=True,
        refresh_per_second=_REFRESHES_PER_SECOND,
        disable=not shown.is_terminal,
    ) as bar:
        task = bar.add_task(description, total=total)
        for item in items:
            yield item
            done += size(item)
            bar.update(task, completed=done)
    seconds = time.perf_counter() - started
    rate = f"{done / seconds:,.0f} {unit}/s" if seconds > 0 else ""
    line = f"{description}  {count_text(done)} {unit}  {duration_text(seconds)}  {rate}"
    shown.print(line, markup=False, soft_wrap=True)


class _Pace:
    """Steps per second while training, and the time lost between intervals."""

    def __init__(self) -> None:
        self._began = self._mark = self._paused = time.monotonic()
        self._mark_step = 0
        self._warm = False
        self._running = False
        self._rate: float | None = None
        self._pause_seconds = 0.0

    def begin(self) -> None:
        self._began = self._paused = time.monotonic()

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self._began

    def resume(self, step: int, *, warm: bool) -> None:
        """Starts to measure at a step; `warm` is False while the first compiles."""
        now = time.monotonic()
        if not self._running and warm:
            self._pause_seconds = now - self._paused
        self._mark, self._mark_step = now, step
        self._warm, self._running = warm, True

    def pause(self, step: int) -> None:
        self._rate = self.rate(step)
        self._paused = time.monotonic()
        self._running = False

    def rate(self, step: int) -> float | None:
        """Steps a second of this interval, or of the last one while unknown."""
        steps, seconds = step - self._mark_step, time.monotonic() - self._mark
        if not (self._running and self._warm) or steps <= 0 or seconds <= 0:
            return self._rate
        return steps / seconds

    def eta(self, step: int, total: int, *, intervals: float) -> float | None:
        """Seconds that remain after `step`, pauses of so many intervals included."""
        rate = self.rate(step)
        if not rate:
            return None
        return (total - step) / rate + intervals * self._pause_seconds


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    size = abs(value)
    return f"{value:.3f}" if 1e-3 <= size < 1e3 or value == 0 else f"{value:.2e}"


def _sparkline(values: Sequence[float], width: int = 16) -> str:
    recent = [value for value in values[-width:] if value == value]
    if len(recent) < 2:
        return ""
    low, high = min(recent), max(recent)
    scale = (len(_BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BLOCKS[round((value - low) * scale)] for value in recent)
