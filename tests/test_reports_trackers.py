"""TensorBoard logs: readable by TensorBoard, without TensorFlow, without duplicates."""

from __future__ import annotations

import pathlib
import subprocess
import sys
import types

from tflearn.reports.trackers import observer, read_scalars


def state(*steps: int) -> types.SimpleNamespace:
    rows = [{"step": s, "loss": 1 / s, "val_accuracy": 0.5} for s in steps]
    return types.SimpleNamespace(history=rows)


def steps_in(folder: pathlib.Path) -> list[int]:
    return [step for step, tag, _ in read_scalars(folder) if tag == "train/loss"]


def test_metrics_of_every_interval_by_their_side(tmp_path: pathlib.Path) -> None:
    observer(tmp_path / "tb")(state(10, 20))
    assert read_scalars(tmp_path / "tb") == [
        (10, "train/loss", read_scalars(tmp_path / "tb")[0][2]),
        (10, "validation/accuracy", 0.5),
        (20, "train/loss", read_scalars(tmp_path / "tb")[2][2]),
        (20, "validation/accuracy", 0.5),
    ]


def test_nothing_is_made_before_the_first_interval(tmp_path: pathlib.Path) -> None:
    observer(tmp_path / "tb")
    assert not (tmp_path / "tb").exists()


def test_a_growing_history_is_written_once(tmp_path: pathlib.Path) -> None:
    observe = observer(tmp_path)
    for last in (1, 2, 3):
        observe(state(*range(1, last + 1)))
    assert steps_in(tmp_path) == [1, 2, 3]


def test_a_resumed_run_goes_on_without_duplicates(tmp_path: pathlib.Path) -> None:
    observer(tmp_path)(state(10, 20, 30))
    # The checkpoint was of step 20: interval 30 is trained again.
    observe = observer(tmp_path)
    observe(state(10, 20, 30))
    observe(state(10, 20, 30, 40))
    assert steps_in(tmp_path) == [10, 20, 30, 40]
    assert len(list(tmp_path.iterdir())) == 1


def test_half_a_record_is_cut_off_and_written_again(tmp_path: pathlib.Path) -> None:
    observer(tmp_path)(state(10, 20))
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-5])
    observer(tmp_path)(state(10, 20, 30))
    assert steps_in(tmp_path) == [10, 20, 30]


def test_values_that_are_no_numbers_are_left_out(tmp_path: pathlib.Path) -> None:
    row = {"step": 1, "loss": 2.0, "val_auc": None}
    observer(tmp_path)(types.SimpleNamespace(history=[row]))
    assert read_scalars(tmp_path) == [(1, "train/loss", 2.0)]


def test_tensorboard_reads_it_and_nobody_imports_tensorflow(
    tmp_path: pathlib.Path,
) -> None:
    code = f"""
import sys, types
sys.modules["tensorboard.compat.notf"] = types.ModuleType("notf")
from tensorboard.backend.event_processing import event_accumulator
from tflearn.reports.trackers import observer
rows = [dict(step=5, loss=0.5), dict(step=6, loss=0.25)]
observer({str(tmp_path)!r})(types.SimpleNamespace(history=rows))
found = event_accumulator.EventAccumulator({str(tmp_path)!r}).Reload()
print([(e.step, e.value) for e in found.Scalars("train/loss")])
print("tensorflow" in sys.modules)
"""
    shown = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"KERAS_BACKEND": "jax", "PATH": "", "PYTHONPATH": ":".join(sys.path)},
    )
    assert shown.stdout.splitlines() == ["[(5, 0.5), (6, 0.25)]", "False"]
