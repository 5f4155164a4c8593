# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # tflearn on Colab
#
# From an empty runtime to a report: find the TPU or GPU, install, run a gin file that
# ships with tflearn, show its report. *Runtime > Change runtime type* chooses a TPU
# (v5e-1), a GPU or none. Set `SOURCE`, then *Runtime > Run all*.
#
# What is under `/content` goes with the runtime. To keep a run, and to go on with it
# tomorrow, mount Drive and let `RUN` be a folder there.

# %% tags=["parameters"]
import html
import importlib.util
import os
import pathlib
import shutil
import subprocess
import sys

from IPython.display import HTML

# tflearn-gin is on no package registry yet: git+https://HOST/OWNER/REPOSITORY, or the
# folder of a checkout.
SOURCE = ""
GIN_FILE = "quickstart/digits.gin"
BINDINGS = ()  # such as "SEED = 1"
RUN = "runs/digits"
ENVIRONMENT = "tflearn-env"

# %% [markdown]
# ## Which accelerator is there?
#
# Asked without JAX: a TPU belongs to one process at a time, and that will be the run.

# %%
# Google's devices that are TPUs, from v2 to 7x; others are network cards.
TPUS = ("0x0027", "0x0056", "0x005e", "0x0062", "0x0063", "0x006f", "0x0076")


def find_accelerator() -> str:
    """Returns `tpu`, `gpu` or `cpu`."""
    for device in pathlib.Path("/sys/bus/pci/devices").glob("*"):
        vendor = (device / "vendor").read_text().strip()
        if vendor == "0x1ae0" and (device / "device").read_text().strip() in TPUS:
            return "tpu"
    found = shutil.which("nvidia-smi")
    if found and subprocess.run([found], capture_output=True).returncode == 0:
        return "gpu"
    return "cpu"


accelerator = find_accelerator()
print(accelerator)

# %% [markdown]
# ## Install
#
# Into an environment of its own: the image keeps its versions, and no restart is
# needed. KerasHub wants TensorFlow for its tokenizers; the build for CPUs does, and
# leaves the TPU or GPU to JAX.

# %%
JAX = {"tpu": "jax[tpu]", "gpu": "jax[cuda12]", "cpu": "jax"}


def installation(source: str, accelerator: str, folder: str) -> list[list[str]]:
    """Returns the commands that make an environment with tflearn."""
    if not source:
        raise SystemExit("Set SOURCE in the first cell: where is tflearn's repository?")
    overrides = pathlib.Path(folder).absolute().with_suffix(".overrides")
    overrides.write_text("tensorflow; sys_platform == 'never'\n")
    uv = [sys.executable, "-m", "uv"]
    wanted = [source, JAX[accelerator], "tensorflow-text[tensorflow-cpu]"]
    to = ["--python", f"{folder}/bin/python", "--override", str(overrides)]
    new = ["--allow-existing", "--python", ">=3.11,<3.14"]
    return [
        [sys.executable, "-m", "pip", "install", "--quiet", "uv"],
        [*uv, "venv", "--quiet", *new, folder],
        [*uv, "pip", "install", "--quiet", *to, *wanted],
    ]


def show(*words: str) -> None:
    """Runs a program and prints its lines as they come."""
    # A notebook draws with a library that the new environment does not have, and makes
    # programs believe that they print to a terminal, where progress bars move.
    env = {**os.environ, "MPLBACKEND": "agg", "TERM": "dumb"}
    for name in ("FORCE_COLOR", "CLICOLOR_FORCE"):
        env.pop(name, None)
    with subprocess.Popen(
        words, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        for line in process.stdout:
            print(line, end="", flush=True)
    if process.returncode:
        raise SystemExit(f"exit code {process.returncode} of {words[0]}, see above")


python = f"{ENVIRONMENT}/bin/python"
if importlib.util.find_spec("tflearn"):
    python = sys.executable
    print("tflearn is installed here already")
else:
    for words in installation(SOURCE, accelerator, ENVIRONMENT):
        show(*words)

# %%
show(python, "-c", "import jax; print(jax.devices())")

# %% [markdown]
# ## Run
#
# The command line, as on a laptop and on a pod. Run this cell again: an interrupted run
# goes on where it was, a finished one says so.

# %%
flags = [f"--gin_file={GIN_FILE}", f"--output_dir={RUN}", "--backend=jax"]
flags += [f"--gin_bindings={binding}" for binding in BINDINGS]
show(python, "-m", "tflearn.run", *flags)

# %% [markdown]
# ## The report

# %%
report = pathlib.Path(RUN, "report.html").read_text(encoding="utf-8")
frame = f'<iframe srcdoc="{html.escape(report)}" width="100%" height="800"></iframe>'
HTML(f"<div>{frame}</div>")
