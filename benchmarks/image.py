"""What does a step on images cost, and a linear probe end to end, beside Keras?

A folder of CIFAR-10 images and a small ResNet of random weights.

- `scratch`: the shipped `cifar10_scratch.gin` (augmentation included) against Keras
  `fit` of the same network and augmentation on arrays in memory; images a second.
- `probe`: the same network frozen, no augmentation, 10 epochs of its head, from files
  to test metrics; each start a process, seconds in all.

Run: python -m benchmarks.image --folder=cifar10_subset.tar [--what scratch]
     [--repeats 5] [--backend jax]
"""

from __future__ import annotations

import argparse
import os
import pathlib
import subprocess
import sys
import tarfile
import tempfile
import time
from typing import Any

from benchmarks import measuring
from benchmarks.measuring import ROOT, Contender, Measure, Numbers
from benchmarks.stages import keras_peak, tflearn_stage

SIZES = {"scratch": 48, "probe": 32}
BATCH = {"scratch": 64, "probe": 64}


def ours(flags: argparse.Namespace) -> tuple[Numbers, Measure]:
    return tflearn_stage(
        "runs/image/cifar10_scratch.gin",
        [f"FOLDER = '{flags.folder}'"],
        steps=flags.steps,
    )


def network(size: int, *, augmented: bool) -> Any:
    """Makes the network of `gin/backbones/resnet_keras_hub.gin` with a head."""
    import keras
    import keras_hub

    backbone = keras_hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[3],
        stackwise_num_filters=[64, 128, 256],
        stackwise_num_blocks=[1, 1, 1],
        stackwise_num_strides=[1, 2, 2],
        block_type="basic_block",
        image_shape=(size, size, 3),
    )
    steps = [keras.layers.Rescaling(1 / 255)]
    if augmented:
        steps += [
            keras.layers.RandomFlip("horizontal"),
            keras.layers.RandomTranslation(0.125, 0.125, fill_mode="constant"),
        ]
    layers = [*steps, backbone, keras.layers.GlobalAveragePooling2D()]
    backbone.trainable = augmented
    inputs = keras.Input((size, size, 3))
    model = keras.Sequential([inputs, *layers, keras.layers.Dense(10)])
    model.compile(
        optimizer=keras.optimizers.AdamW(1e-3),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def arrays(folder: str, part: str, size: int) -> tuple[Any, Any]:
    """Reads a part of the folder, as Keras does."""
    import keras
    import numpy as np
    from PIL import Image

    paths = sorted(pathlib.Path(folder).rglob(f"{part}/*/*.jpg"))
    classes = sorted({path.parent.name for path in paths})
    images = [np.asarray(Image.open(path).resize((size, size))) for path in paths]
    labels = [classes.index(path.parent.name) for path in paths]
    order = np.random.default_rng(0).permutation(len(paths))
    keras.utils.set_random_seed(0)
    return np.stack(images)[order].astype("float32"), np.array(labels)[order]


def keras_fit(flags: argparse.Namespace) -> tuple[Numbers, Measure]:
    size, rows = SIZES["scratch"], flags.steps * BATCH["scratch"]
    model = network(size, augmented=True)
    with unpacked(flags.folder) as folder:
        x, y = (a[:rows] for a in arrays(folder, "train", size))

    def measure() -> Numbers:
        began = time.perf_counter()
        model.fit(x, y, batch_size=BATCH["scratch"], epochs=1, verbose=0)
        seconds = time.perf_counter() - began
        return {"seconds": seconds, "per_second": len(x) / seconds}

    measure()
    return {"peak_gflops": keras_peak()}, measure


def keras_probe(flags: argparse.Namespace) -> None:
    size = SIZES["probe"]
    with unpacked(flags.folder) as folder:
        train, test = (arrays(folder, part, size) for part in ("train", "test"))
    model = network(size, augmented=False)
    model.fit(*train, batch_size=BATCH["probe"], epochs=10, verbose=0)
    model.evaluate(*test, batch_size=128, verbose=0)


class unpacked:  # noqa: N801
    """The folder of images, unpacked if it is an archive."""

    def __init__(self, path: str) -> None:
        self._path, self._made = path, None

    def __enter__(self) -> str:
        if not self._path.endswith(".tar"):
            return self._path
        self._made = tempfile.TemporaryDirectory()
        with tarfile.open(self._path) as archive:
            archive.extractall(self._made.name, filter="data")
        return self._made.name

    def __exit__(self, *_: object) -> None:
        if self._made is not None:
            self._made.cleanup()


def probe_round(flags: argparse.Namespace) -> dict[str, float]:
    """Runs both from files to test metrics; tflearn with nothing kept."""
    with tempfile.TemporaryDirectory() as work:
        bindings = [f"FOLDER = '{flags.folder}'", f"SIZE = {SIZES['probe']}"]
        bindings += ["EPOCHS = '10 epochs'", "data.Data.augment = ()"]
        commands = {
            "tflearn": [
                *(sys.executable, "-m", "tflearn.run"),
                "--gin_file=runs/image/cifar10_scratch.gin",
                "--gin_file=regimes/frozen.gin",
                *(f"--gin_bindings={x}" for x in bindings),
                f"--output_dir={work}/run",
            ],
            "keras": [
                *(sys.executable, "-m", "benchmarks.image", "--contender=probe"),
                f"--folder={flags.folder}",
            ],
        }
        environment = os.environ | {
            "TFLEARN_CACHE": f"{work}/cache",
            "KERAS_BACKEND": flags.backend,
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }
        found = {}
        for name, command in commands.items():
            began = time.perf_counter()
            subprocess.run(
                command,
                check=True,
                cwd=ROOT,
                env=environment,
                stdout=subprocess.DEVNULL,
            )
            found[name] = time.perf_counter() - began
    return found


def measure_probe(flags: argparse.Namespace) -> dict[str, Numbers]:
    rounds = []
    for number in range(flags.repeats):
        rounds.append(probe_round(flags))
        shown = measuring.shorten(rounds[-1])
        print(f"round {number + 1} of {flags.repeats}: {shown}", flush=True)
    return {
        name: {"said": {}, "rounds": [{"seconds": x[name]} for x in rounds]}
        for name in rounds[0]
    }


def measure_scratch(flags: argparse.Namespace) -> dict[str, Numbers]:
    environment = {"KERAS_BACKEND": flags.backend}
    both = [
        Contender(name="tflearn", prepare="ours", environment=environment),
        Contender(name="keras fit", prepare="keras", environment=environment),
    ]
    return measuring.compare(
        "benchmarks.image",
        both,
        repeats=flags.repeats,
        flags=[f"--folder={flags.folder}", f"--steps={flags.steps}"],
    )


def main() -> None:
    parser = measuring.parser(__doc__)
    parser.add_argument("--folder", required=True, help="an image folder or its tar")
    parser.add_argument("--what", default="scratch", choices=tuple(SIZES))
    parser.add_argument("--steps", type=int, default=24)
    flags = parser.parse_args()
    flags.folder = str(pathlib.Path(flags.folder).absolute())
    if flags.contender == "probe":
        keras_probe(flags)
        return
    if flags.contender:
        measuring.serve({"ours": ours, "keras": keras_fit}[flags.contender], flags)
        return
    probe = flags.what == "probe"
    found = measure_probe(flags) if probe else measure_scratch(flags)
    key, unit = ("seconds", "s") if probe else ("per_second", "images/s")
    summary = measuring.summarize(found, key)
    title = "linear probe, 10 epochs" if probe else "small ResNet from scratch"
    title += ", CIFAR-10 folder of 5,000 images"
    measuring.show(title, summary, unit)
    measuring.write(
        f"image_{flags.what}_{flags.backend}",
        {"question": title, "unit": unit, "summary": summary, "contenders": found},
        results=flags.results,
    )


if __name__ == "__main__":
    main()
