"""The flags of the command line."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """What the flags say.

    Args:
        mode: What to do.
        backend: The Keras backend, resolved.
        gin_files: The declaration's files in order.
        gin_bindings: Bindings that override the files.
        gin_search_paths: Folders of the user's own gin files.
        gin_allow_imports: The only packages that gin files may import; None for all.
        output_dir: The run directory to write; by default `runs/<experiment>`.
        run_dir: A finished run to read (`evaluate`, `predict`).
        split: Which split to evaluate; by default `test`, else `validation`.
        input: A file of rows; for `predict` `-` is standard input.
        output: The file to write; None is standard output.
        format: `jsonl` or `csv`.
        max_new_tokens: How long the texts get that a language model makes, as given.
        sampler: How it chooses tokens; see `tflearn.evaluation.generation`.
        temperature: What its logits are divided by, as given.
        seed: Decides what it draws, as given.
        coordinator: Address `host:port` of process 0, for several processes.
        processes: How many there are, as given.
        process_id: Which one this is, from 0, as given.
        topology: For `check`, the TPU slice to compile for, such as `v5e:2x4`.
        hardware: For `plan`, names of hardware; none: as declared.
        regimes: For `plan`, the regimes that are planned; none: all.
        steps: For `resume_test`, after how many steps of a stage it is killed, as
            given.
        allow: What may have changed since the run began: `data`, `versions`.
        only: For `compare`, the arms to run, separated by commas; without the report.
        beside: For `compare`, folders of comparisons to lay side by side.
        debug: Whether errors show where in the code they arose.
    """

    mode: str = "train"
    backend: str = "jax"
    gin_files: tuple[str, ...] = ()
    gin_bindings: tuple[str, ...] = ()
    gin_search_paths: tuple[str, ...] = ()
    gin_allow_imports: tuple[str, ...] | None = None
    output_dir: str | None = None
    run_dir: str | None = None
    split: str | None = None
    input: str | None = None
    output: str | None = None
    format: str = "jsonl"
    max_new_tokens: str | None = None
    sampler: str | None = None
    temperature: str | None = None
    seed: str | None = None
    coordinator: str | None = None
    processes: str | None = None
    process_id: str | None = None
    topology: str | None = None
    hardware: tuple[str, ...] = ()
    regimes: tuple[str, ...] = ()
    steps: str | None = None
    allow: tuple[str, ...] = ()
    only: str | None = None
    beside: tuple[str, ...] = ()
    debug: bool = False
