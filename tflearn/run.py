"""The command line: flags to a mode. Run it as `python -m tflearn.run --help`."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import importlib.util
import logging
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from tflearn.commands.arguments import Arguments
from tflearn.support import absence, compiled, secrets, system
from tflearn.support.declarations import permissions
from tflearn.support.errors import ConfigError, TflearnError, nearest

BACKENDS = ("jax", "tensorflow")
# `tflearn.distribution.processes.ProcessLost.exit_code`, which would import Keras.
_LOST = 75
FORMATS = ("jsonl", "csv")


@dataclasses.dataclass(frozen=True)
class Mode:
    """The flags of a mode besides those that every mode takes.

    Args:
        required: Those it cannot do without.
        optional: The others.
    """

    required: tuple[str, ...]
    optional: tuple[str, ...] = ()

    @property
    def flags(self) -> tuple[str, ...]:
        """All flags of the mode."""
        return (*self.required, *self.optional, *_ALWAYS)


_EXAMPLES = {
    "--gin_file": "quickstart/digits.gin",
    "--run_dir": "runs/digits",
    "--input": "rows.csv",
}
# Libraries whose log lines and warnings are no news to a user.
_NOISY = ("absl", "google", "jax", "keras", "orbax", "tensorflow")
_ALWAYS = ("--mode", "--backend", "--debug", permissions.FLAG)
_DECLARED = ("--gin_bindings", "--gin_search_path")
_PROCESSES = ("--coordinator", "--processes", "--process_id")
_GENERATED = ("--max_new_tokens", "--sampler", "--temperature", "--seed")
MODES: Mapping[str, Mode] = MappingProxyType(
    {
        "train": Mode(
            (),
            (
                *("--gin_file", "--run_dir", *_DECLARED),
                *("--output_dir", "--allow", *_PROCESSES),
            ),
        ),
        "check": Mode(("--gin_file",), (*_DECLARED, "--topology")),
        "plan": Mode(
            ("--gin_file",), (*_DECLARED, "--output_dir", "--hardware", "--regimes")
        ),
        "compare": Mode(
            (), ("--gin_file", *_DECLARED, "--output_dir", "--only", "--beside")
        ),
        "rank": Mode(("--gin_file",), (*_DECLARED, "--output_dir")),
        "inspect": Mode(("--run_dir",)),
        "resume_test": Mode(("--gin_file",), (*_DECLARED, "--output_dir", "--steps")),
        "evaluate": Mode(
            ("--run_dir",), (*_DECLARED, "--split", "--input", "--output")
        ),
        "predict": Mode(
            ("--run_dir", "--input"), ("--output", "--format", *_GENERATED)
        ),
    }
)


class _Parser(argparse.ArgumentParser):
    """Reports mistakes as every other part does."""

    def error(self, message: str) -> None:
        raise ConfigError(message, fix="python -m tflearn.run --help")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        argv: The flags; those of the process by default.

    Returns:
        The exit code: 0, 1 where a resume test found a difference, 2 for a mistake
        of the user, 75 if another process, the disk or the memory gave out, 143 and
        130 when SIGTERM and SIGINT asked it to end.
    """
    flags = sys.argv[1:] if argv is None else list(argv)
    debug = "--debug" in flags
    try:
        arguments = parse(flags)
        # For all that this process reads, the declarations of finished runs included.
        permissions.allow_only(arguments.gin_allow_imports)
        _choose_backend(arguments.backend)
        _quieten(debug)
        # Only now may Keras be imported.
        absence.import_keras()
        command = importlib.import_module(f"tflearn.commands.{arguments.mode}")
        return command.main(arguments)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        known = _explain(error)
        if known is None or debug:
            raise
        print(f"error: {known}", file=sys.stderr)
        return getattr(known, "exit_code", 2)


def parse(flags: Sequence[str]) -> Arguments:
    """Reads the flags.

    Args:
        flags: The words after the program's name.

    Returns:
        The arguments, with the backend resolved.

    Raises:
        ConfigError: A flag is unknown, missing, or not for this mode.
    """
    parser = _parser()
    given, unknown = parser.parse_known_args(flags)
    if unknown:
        name = unknown[0].split("=")[0]
        raise ConfigError(
            "unknown flag" if name.startswith("-") else "unexpected word",
            received=unknown[0],
            fix="python -m tflearn.run --help",
            nearest=nearest(name, {f for mode in MODES.values() for f in mode.flags}),
        )
    _check_choice("--mode", given.mode, tuple(MODES))
    if given.format is not None:
        _check_choice("--format", given.format, FORMATS)
    _check_flags(given)
    _check_folders(given)
    return Arguments(
        mode=given.mode,
        backend=_resolve_backend(given.backend),
        gin_files=tuple(given.gin_file or ()),
        gin_bindings=tuple(given.gin_bindings or ()),
        gin_search_paths=tuple(given.gin_search_path or ()),
        gin_allow_imports=permissions.parse_allowed(given.gin_allow_imports),
        output_dir=given.output_dir,
        run_dir=given.run_dir,
        split=given.split,
        input=given.input,
        output=given.output,
        format=given.format or FORMATS[0],
        max_new_tokens=given.max_new_tokens,
        sampler=given.sampler,
        temperature=given.temperature,
        seed=given.seed,
        coordinator=given.coordinator,
        processes=given.processes,
        process_id=given.process_id,
        topology=given.topology,
        hardware=_names(given.hardware),
        regimes=_names(given.regimes),
        steps=given.steps,
        allow=tuple(given.allow or ()),
        only=given.only,
        beside=tuple(given.beside or ()),
        debug=given.debug,
    )


def _names(given: str | None) -> tuple[str, ...]:
    return tuple(x.strip() for x in (given or "").split(",") if x.strip())


def _check_folders(given: argparse.Namespace) -> None:
    """Refuses what would silently become a local folder of a strange name."""
    local = {"--output": given.output}
    if given.mode == "resume_test":
        local["--output_dir"] = given.output_dir
    for flag, name in local.items():
        if name and "://" in name:
            raise ConfigError(
                "this is written to this machine: only run directories lie in buckets",
                received=f"{flag}={name}",
                expected="a path of this machine",
            )


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m tflearn.run",
        description="Train, evaluate and report a declared experiment.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--mode", default="train", help=f"{', '.join(MODES)} (default: train)")
    add("--gin_file", action="append", help="a declaration; may be repeated")
    add("--gin_bindings", action="append", help='such as "SEED = 1"; may be repeated')
    add("--gin_search_path", action="append", help="a folder of gin files of your own")
    add(permissions.FLAG, help="refuse others: tflearn,keras (default: import all)")
    add("--output_dir", help="the run directory (default: runs/<experiment>)")
    add("--run_dir", help="a finished run to evaluate, to predict with or to update")
    add("--split", help="the split to evaluate (default: test, else validation)")
    add("--input", help="a file of rows or a folder; - for standard input")
    add("--output", help="the file to write (default: standard output)")
    add("--format", help="jsonl (default) or csv, for predict")
    add("--max_new_tokens", help="for predict with a language model (default: 100)")
    add("--sampler", help="greedy, random, top_k:40 (default), top_p:0.9, beam:4")
    add("--temperature", help="what logits are divided by (default: 1)")
    add("--seed", help="another seed draws other texts (default: 0)")
    add("--steps", help="for resume_test: each stage is killed after so many (10)")
    add("--allow", action="append", help="data or versions that changed under a run")
    add("--coordinator", help="host:port of process 0, for several processes")
    add("--processes", help="how many processes there are")
    add("--process_id", help="which one this is, from 0")
    add("--topology", help="for check: compile for a TPU slice, such as v5e:2x4")
    add("--hardware", help="for plan: here (default), a100-80gb:8, v5e:2x4, ...")
    add("--regimes", help="for plan: only these, such as frozen,lora")
    add("--beside", action="append", help="for compare: a comparison's folder; twice")
    add("--only", help="for compare: run these arms alone, such as frozen,full")
    add("--backend", help="jax or tensorflow (default: KERAS_BACKEND, else jax)")
    add("--debug", action="store_true", help="show tracebacks and all log lines")
    return parser


def _check_choice(flag: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ConfigError(
            f"{flag} has no such value",
            received=value,
            expected=", ".join(choices),
            nearest=nearest(value, choices),
        )


def _check_flags(given: argparse.Namespace) -> None:
    mode = MODES[given.mode]
    present = {f"--{name}": value for name, value in vars(given).items() if value}
    for flag in present:
        if flag not in mode.flags:
            raise ConfigError(
                f"{flag} means nothing to --mode={given.mode}",
                expected=", ".join(mode.flags),
            )
    if given.mode == "train" and not (given.gin_file or given.run_dir):
        raise ConfigError(
            "--mode=train needs --gin_file, or --run_dir for a run to update",
            fix=f"--gin_file={_EXAMPLES['--gin_file']}",
        )
    if given.mode == "compare":
        _check_compare(given)
    for flag in mode.required:
        if flag not in present:
            raise ConfigError(
                f"--mode={given.mode} needs {flag}", fix=f"{flag}={_EXAMPLES[flag]}"
            )


def _check_compare(given: argparse.Namespace) -> None:
    if bool(given.gin_file) == bool(given.beside):
        raise ConfigError(
            "--mode=compare needs --gin_file, or --beside for finished comparisons",
            fix=f"--gin_file={_EXAMPLES['--gin_file']}",
        )
    if given.beside and not given.output_dir:
        raise ConfigError(
            "--mode=compare --beside needs --output_dir", fix="--output_dir=runs/beside"
        )


def _resolve_backend(flag: str | None) -> str:
    named = flag or os.environ.get("KERAS_BACKEND")
    if named:
        source = "--backend" if flag else "the environment variable KERAS_BACKEND"
        _check_choice(source, named, BACKENDS)
        if importlib.util.find_spec(named) is None:
            raise ConfigError(
                f"{source} names a package that is not installed",
                received=named,
                fix=f"pip install {named}",
            )
        return named
    for name in BACKENDS:
        if importlib.util.find_spec(name) is not None:
            return name
    raise ConfigError(
        "no backend is installed", expected="jax or tensorflow", fix="pip install jax"
    )


def _choose_backend(name: str) -> None:
    keras = sys.modules.get("keras")
    if keras is not None and keras.backend.backend() != name:
        raise ConfigError(
            "Keras was imported with another backend",
            received=keras.backend.backend(),
            expected=name,
            fix="start a new process",
        )
    os.environ["KERAS_BACKEND"] = name
    if name == "jax":
        compiled.keep()


def _quieten(debug: bool) -> None:
    log = logging.getLogger("tflearn")
    log.setLevel(logging.DEBUG if debug else logging.INFO)
    log.propagate = False
    # A handler keeps the stream it was made with; a second call may have another.
    log.handlers.clear()
    handler = logging.StreamHandler()
    handler.addFilter(secrets.RedactingFilter())
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.addHandler(handler)
    if debug:
        return
    # Read by the C++ side of TensorFlow and XLA when they are loaded.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.ERROR)
    for name in _NOISY:
        warnings.filterwarnings("ignore", module=name)


def _explain(error: Exception) -> TflearnError | None:
    config = sys.modules.get("tflearn.config")
    if config is not None:
        return config.explain(error) or system.explain(error)
    return error if isinstance(error, TflearnError) else None


def _main_shown() -> int:
    """Runs the command line; tracebacks hold no secrets, and change no exit code."""
    secrets.redact_tracebacks()
    try:
        return main()
    except Exception as error:
        sys.excepthook(type(error), error, error.__traceback__)
        return getattr(_explain(error), "exit_code", 2) if _explain(error) else 1


def _leave(code: int) -> None:
    """Ends this process."""
    if code == _LOST:
        sys.stdout.flush()
        sys.stderr.flush()
        # Python would wait at its exit for the process that is gone.
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    _leave(_main_shown())
