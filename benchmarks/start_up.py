"""How long from the command to the first step, and the second time?

Each start is a process of its own, timed from the command to the end of the first step
of training; all load scikit-learn's digits 0 to 4 and train the same ResNet of KerasHub
with a linear head on 32 of them:

- keras: a bare script, as one would write it;
- keras without tensorflow: the same where TensorFlow is not installed. KerasHub imports
  it on every backend where it is, and tflearn on JAX prevents that. On JAX alone;
- tflearn first: the quickstart in an empty run directory, nothing compiled before. What
  it does beyond the script: reads the declaration, builds and checks both stages,
  splits, fingerprints, writes the run directory and a checkpoint of step 0;
- tflearn second: the same again in another directory, with what `first` has compiled.

Run: python -m benchmarks.start_up [--repeats 5] [--backend jax]
     [--gin_file quickstart/digits.gin]

With `--gin_file=runs/text/sst2_full.gin --binding="FOLDER = 'sst2'"` compiling rules;
there is no bare script for it, so only `first` and `second` are told.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time

from benchmarks import measuring
from benchmarks.measuring import ROOT, Numbers

# Says when the first step is done, then ends: what comes behind is no start.
_MARK = "FIRST STEP"
_BARE = f"""
import os
import keras
import keras_hub
from sklearn.datasets import load_digits

images, labels = load_digits(return_X_y=True)
images = images[labels < 5].reshape(-1, 8, 8, 1).astype("float32")
images, labels = images.repeat(4, axis=1).repeat(4, axis=2), labels[labels < 5]
keras.utils.set_random_seed(0)
backbone = keras_hub.models.ResNetBackbone(
    input_conv_filters=[64],
    input_conv_kernel_sizes=[3],
    stackwise_num_filters=[64, 128],
    stackwise_num_blocks=[1, 1],
    stackwise_num_strides=[1, 2],
    block_type="basic_block",
    image_shape=(32, 32, 1),
)
pooled = keras.layers.GlobalAveragePooling2D()(backbone.output)
model = keras.Model(backbone.input, keras.layers.Dense(5)(pooled))
model.compile(
    keras.optimizers.AdamW(3e-3),
    keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    weighted_metrics=["accuracy"],
)
model.fit(images[:32], labels[:32], batch_size=32, verbose=0)
print("{_MARK}", flush=True)
os._exit(0)
"""
_NO_TENSORFLOW = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("tensorflow", "tensorflow_text"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
"""
_OURS = f"""
import os, sys

# As `python -m tflearn.run` starts.
flags, sys.argv = sys.argv[2:], ["-m"]
from tflearn.run import main
from tflearn.support import absence

absence.import_keras()
from tflearn.training import loop

train = loop.train

def once(model, batches, *, schedule, **rest):
    import dataclasses
    short = dataclasses.replace(schedule, total_steps=1, interval_steps=1)
    train(model, batches, schedule=short, on_interval=lambda step, logs: True)
    print("{_MARK}", flush=True)
    os._exit(0)

loop.train = once
sys.exit(main(flags))
"""


def start(command: list[str], environment: dict[str, str]) -> float:
    """Returns seconds from the command to the end of the first step."""
    began = time.perf_counter()
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"} | environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if _MARK in line:
            seconds = time.perf_counter() - began
            process.wait()
            return seconds
    raise SystemExit(f"no first step: exit code {process.wait()}")


def one_round(flags: argparse.Namespace) -> dict[str, float]:
    common = {"KERAS_BACKEND": flags.backend}
    found = {}
    with tempfile.TemporaryDirectory() as work:
        ours = common | {"TFLEARN_CACHE": f"{work}/cache"}
        base = [sys.executable, "-c", _OURS, "tflearn.run"]
        base += [f"--gin_file={flags.gin_file}"]
        base += [f"--gin_bindings={x}" for x in flags.binding]
        for name in ("first", "second"):
            command = [*base, f"--output_dir={work}/{name}"]
            found[f"tflearn {name}"] = start(command, ours)
        if not flags.binding:
            found["keras"] = start([sys.executable, "-c", _BARE], common)
            if flags.backend == "jax":
                alone = [sys.executable, "-c", _NO_TENSORFLOW + _BARE]
                found["keras without tensorflow"] = start(alone, common)
    return found


def main() -> None:
    parser = measuring.parser(__doc__)
    parser.add_argument("--gin_file", default="quickstart/digits.gin")
    parser.add_argument("--binding", action="append", default=[])
    flags = parser.parse_args()
    rounds = []
    for number in range(flags.repeats):
        rounds.append(one_round(flags))
        shown = measuring.shorten(rounds[-1])
        print(f"round {number + 1} of {flags.repeats}: {shown}", flush=True)
    contenders: dict[str, Numbers] = {
        name: {"said": {}, "rounds": [{"seconds": x[name]} for x in rounds]}
        for name in rounds[0]
    }
    summary = measuring.summarize(contenders, "seconds")
    measuring.show("from command to first step", summary, "s")
    name = flags.gin_file.rsplit("/", 1)[-1].removesuffix(".gin")
    measuring.write(
        f"start_up_{name}_{flags.backend}",
        {
            "question": f"from the command to the first step, {name}",
            "unit": "s",
            "summary": summary,
            "contenders": contenders,
        },
        results=flags.results,
    )


if __name__ == "__main__":
    main()
