"""After a fault: back to the last checkpoint, or the end of the run with its rows."""

from __future__ import annotations

from tflearn.distribution import processes
from tflearn.support import files, storage
from tflearn.support.console import say
from tflearn.support.errors import RunError
from tflearn.training import faults
from tflearn.training.intervals import Run


def recover(run: Run) -> None:
    """Goes back to the last checkpoint after a fault, or stops the run.

    Args:
        run: The stage; what is wrong with its newest interval is `fault`.

    Raises:
        RunError: The policy is to stop, or it went back too often.
    """
    state, declared = run.state, run.prepared.stage.faults
    fault, end, run.fault = run.fault, state.step, ""
    if declared.policy == "stop" or state.rollbacks == declared.most:
        raise _stopped(run, fault)
    state.rollbacks += 1
    run.restore()
    rate = declared.slower**state.rollbacks
    say(
        f"warning: {fault} at step {end}; back to step {state.step}, the learning "
        f"rate is {rate:.4g} of the declared one from there on"
    )


def _stopped(run: Run, fault: str) -> RunError:
    """Finds the step of a fault, and its rows, for the error that ends the run."""
    end, found = run.state.step, {}
    if processes.count() == 1:
        run.restore()
        if run.state.step == run.track.leg.span.end and not run.track.is_last:
            run.track.go_on()
        # Behind the end of a phase the steps would be others.
        last = min(end, run.track.leg.span.end)
        found = faults.locate(run.prepared, start=run.state.step, end=last)
    path = run.folder / "fault.json"
    if processes.is_chief():
        files.write_json(path, {"fault": fault, "by": end, **found})
    where = f"step {found['step']}" if found else f"by step {end}"
    rows = f", rows {', '.join(found['rows'][:4])} ..." if found else ""
    return RunError(
        f"numbers went wrong in stage '{run.prepared.stage.name}'",
        received=f"{fault}; {where}{rows}",
        expected="a finite loss",
        fix=f"look at {storage.shown(path)}; a lower learning rate, clipping, or "
        "faults.Faults.policy = 'rollback' or 'skip'",
    )
