"""Progress: a bar for a person, lines for a log file, no cost for the steps."""

from __future__ import annotations

import io
import threading
from typing import Any

import keras
import numpy as np
import pytest
import rich.console

from tflearn.training import progress
from tflearn.training.progress import Progress, track


def log_file() -> rich.console.Console:
    return rich.console.Console(file=io.StringIO(), width=80, highlight=False)


def terminal(width: int = 80) -> rich.console.Console:
    return rich.console.Console(
        file=io.StringIO(), width=width, force_terminal=True, highlight=False
    )


def text_of(console: rich.console.Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def fit(*callbacks: keras.callbacks.Callback, steps: int = 4, epochs: int = 2) -> None:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", metrics=["mae"])
    x, y = np.ones((steps * 2, 3)), np.ones((steps * 2, 1))
    model.fit(x, y, batch_size=2, epochs=epochs, verbose=0, callbacks=list(callbacks))


class TestLogFile:
    def test_one_line_an_interval_with_loss_metric_pace_and_eta(self) -> None:
        console = log_file()
        fit(Progress(8, description="tune", console=console))
        first, last = text_of(console).splitlines()
        assert first.startswith("tune  step 4/8   50%  loss ")
        assert "mae " in first and "steps/s" in first and "eta " in first
        assert last.startswith("tune  step 8/8  100%  loss ")
        assert "took " in last and "eta" not in last

    def test_a_resumed_stage_counts_from_where_it_starts(self) -> None:
        console = log_file()
        shown = Progress(
            18, description="tune", start_step=10, interval_steps=4, console=console
        )
        fit(shown)
        lines = text_of(console).splitlines()
        assert [line.split("  ")[1] for line in lines] == ["step 14/18", "step 18/18"]

    def test_a_short_last_interval_ends_at_the_total(self) -> None:
        console = log_file()
        fit(Progress(7, description="tune", interval_steps=4, console=console))
        assert "step 7/7  100%" in text_of(console)

    def test_validation_of_the_interval_is_in_its_line(self) -> None:
        console = log_file()
        history: list[dict[str, float]] = []

        class Validate(keras.callbacks.Callback):
            def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
                step = 4 * (epoch + 1)
                row = {"step": step, **logs, "val_accuracy": 0.5 + epoch / 10}
                history.append(row)

        shown = Progress(8, description="tune", history=history, console=console)
        fit(shown, Validate())
        first, last = text_of(console).splitlines()
        assert "val_accuracy 0.500" in first and "mae" not in first
        assert "val_accuracy 0.600" in last

    def test_the_metric_can_be_named(self) -> None:
        console = log_file()
        history = [{"step": 4, "loss": 1.0, "val_accuracy": 0.7, "val_f1": 0.25}]
        shown = Progress(
            4, description="tune", history=history, metric="val_f1", console=console
        )
        fit(shown, epochs=1)
        assert "val_f1 0.250" in text_of(console)

    def test_brackets_in_a_name_are_no_markup(self) -> None:
        console = log_file()
        fit(Progress(4, description="[bold]tune", console=console), epochs=1)
        assert text_of(console).startswith("[bold]tune  step 4/4")

    def test_no_control_characters(self) -> None:
        console = log_file()
        fit(Progress(8, description="tune", console=console))
        assert "\x1b" not in text_of(console)


class TestTerminal:
    def test_a_bar_with_the_course_of_the_loss(self) -> None:
        console = terminal()
        fit(Progress(12, description="tune", console=console), epochs=3)
        written = text_of(console)
        assert "━" in written and "12/12" in written and "100%" in written
        assert any(block in written for block in "▁▂▃▄▅▆▇█")

    def test_the_cursor_comes_back(self) -> None:
        console = terminal()
        fit(Progress(8, description="tune", console=console))
        assert text_of(console).rindex("\x1b[?25h") > text_of(console).rindex(
            "\x1b[?25l"
        )

    def test_two_lines_fit_in_80_columns(self) -> None:
        console = terminal()
        history = [
            {"step": 4 * i, "loss": 1 / i, "val_accuracy": 1 - 1 / i}
            for i in range(1, 30)
        ]
        shown = Progress(123456, description="pretrain", history=history)
        lines = console.render_lines(shown._render(), pad=False)
        assert len(lines) == 2
        assert all(sum(piece.cell_length for piece in line) <= 80 for line in lines)

    def test_a_failed_run_leaves_no_bar_behind(self) -> None:
        class Fail(keras.callbacks.Callback):
            def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
                raise RuntimeError("disk full")

        console = terminal()
        with pytest.raises(RuntimeError, match="disk full"):
            fit(Progress(8, description="first", console=console), Fail())
        fit(Progress(8, description="second", console=console))
        assert Progress._active is None
        assert "second" in text_of(console)


class TestCost:
    def test_keras_keeps_asynchronous_dispatch(self) -> None:
        shown = Progress(8, description="tune", console=log_file())
        callbacks = keras.callbacks.CallbackList([shown], steps=4, epochs=2)
        if keras.backend.backend() == "jax":
            assert callbacks._async_train

    def test_logs_of_a_batch_are_never_read(self) -> None:
        class Untouchable(dict[str, float]):
            def __getitem__(self, key: str) -> float:
                raise AssertionError("read a batch's logs")

            items = keys = values = get = __iter__ = __getitem__  # type: ignore

        shown = Progress(8, description="tune", console=log_file())
        shown.on_train_begin()
        shown.on_epoch_begin(0)
        shown.on_train_batch_end(0, Untouchable(loss=1.0))

    def test_threads_that_finish_out_of_order_never_turn_it_back(self) -> None:
        shown = Progress(100, description="tune", console=log_file())
        shown.on_train_begin()
        shown.on_epoch_begin(0)
        for batch in (0, 5, 3):
            thread = threading.Thread(target=shown.on_train_batch_end, args=(batch,))
            thread.start()
            thread.join()
        assert shown._step == 6


class TestTrack:
    def test_passes_all_items_on_and_says_how_many(self) -> None:
        console = log_file()
        batches = [[1, 2, 3], [4]]
        tracked = track(
            batches, total=4, description="evaluate test", size=len, console=console
        )
        assert list(tracked) == batches
        assert text_of(console).startswith("evaluate test  4 examples  ")
        assert len(text_of(console).splitlines()) == 1

    def test_an_unknown_total_is_fine_on_a_terminal(self) -> None:
        console = terminal()
        assert list(track([1, 2], total=None, description="x", console=console)) == [
            1,
            2,
        ]


@pytest.mark.parametrize(
    ("values", "expected"),
    [([1.0], ""), ([0.0, 1.0], "▁█"), ([1.0, 1.0], "▁▁"), ([float("nan"), 0, 7], "▁█")],
)
def test_sparkline(values: list[float], expected: str) -> None:
    assert progress._sparkline(values) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.4123, "0.412"), (0, "0.000"), (1.5e-5, "1.50e-05"), (12345.0, "1.23e+04")],
)
def test_numbers_are_short(value: float, expected: str) -> None:
    assert progress._number(value) == expected
