"""What does a step on images cost, and a linear probe end to end, beside Keras?

A folder of CIFAR-10 images, and ResNets of random weights: `small` of the shipped file
(three blocks), `resnet18` as KerasHub's preset of that name has it, of 64 x 64 pixels.

- `scratch`: the shipped `cifar10_scratch.gin` (augmentation included) against Keras
  `fit` of the same network and augmentation on arrays in memory; images a second.
- `probe`: the same network frozen, no augmentation, 10 epochs of its head, from files
  to test metrics; each start a process, seconds in all. tflearn with features that may
  be 1 % off (`Stage.cache_tolerance`), so that processors with matrix units round what
  they multiply to bfloat16; `exact` allows nothing. Keras trains all epochs, or
  `--peer_epochs`, and the median of its epochs is added for each of the others.

XLA's convolutions of images smaller than their kernel are slow on CPUs, and tflearn
goes around them (`distribution/convolutions.py`); TensorFlow's are not. So Keras may
run on the other backend, whichever is faster for it.

Run: python -m benchmarks.image --folder=cifar10_subset.tar [--what scratch]
     [--network small] [--repeats 5] [--peer_epochs 10] [--backend jax]
     [--peer_backend tensorflow]
"""

from __future__ import annotations

import argparse
import dataclasses
import json
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

WHAT = ("scratch", "probe")
BATCH, EPOCHS = 64, 10


@dataclasses.dataclass(frozen=True)
class Network:
    """A ResNet of basic blocks."""

    title: str
    filters: tuple[int, ...]
    blocks: tuple[int, ...]
    kernel: int
    sizes: dict[str, int]

    @property
    def arguments(self) -> dict[str, list[int]]:
        """What both hand to KerasHub."""
        return {
            "input_conv_kernel_sizes": [self.kernel],
            "stackwise_num_filters": list(self.filters),
            "stackwise_num_blocks": list(self.blocks),
            "stackwise_num_strides": [1, *[2] * (len(self.blocks) - 1)],
        }


NETWORKS = {
    "small": Network(
        "a small ResNet", (64, 128, 256), (1, 1, 1), 3, {"scratch": 48, "probe": 32}
    ),
    "resnet18": Network(
        "a ResNet-18", (64, 128, 256, 512), (2,) * 4, 7, dict.fromkeys(WHAT, 64)
    ),
}


def bindings(flags: argparse.Namespace, what: str) -> list[str]:
    """Returns what makes the shipped experiment that of a network."""
    network = NETWORKS[flags.network]
    resnet = "keras_hub.models.ResNetBackbone"
    return [
        f"FOLDER = '{flags.folder}'",
        f"SIZE = {network.sizes[what]}",
        *(f"{resnet}.{name} = {value}" for name, value in network.arguments.items()),
    ]


def ours(flags: argparse.Namespace) -> tuple[Numbers, Measure]:
    return tflearn_stage(
        "runs/image/cifar10_scratch.gin",
        bindings(flags, "scratch"),
        steps=flags.steps,
    )


def build(flags: argparse.Namespace, what: str) -> Any:
    """Makes the network of `gin/backbones/resnet_keras_hub.gin` with a head."""
    import keras
    import keras_hub

    augmented = what == "scratch"
    size = NETWORKS[flags.network].sizes[what]
    backbone = keras_hub.models.ResNetBackbone(
        input_conv_filters=[64],
        block_type="basic_block",
        image_shape=(size, size, 3),
        **NETWORKS[flags.network].arguments,
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
    size, rows = NETWORKS[flags.network].sizes["scratch"], flags.steps * BATCH
    model = build(flags, "scratch")
    with unpacked(flags.folder) as folder:
        x, y = (a[:rows] for a in arrays(folder, "train", size))

    def measure() -> Numbers:
        began = time.perf_counter()
        model.fit(x, y, batch_size=BATCH, epochs=1, verbose=0)
        seconds = time.perf_counter() - began
        return {"seconds": seconds, "per_second": len(x) / seconds}

    measure()
    return {"peak_gflops": keras_peak()}, measure


def keras_probe(flags: argparse.Namespace) -> None:
    import keras

    size = NETWORKS[flags.network].sizes["probe"]
    with unpacked(flags.folder) as folder:
        train, test = (arrays(folder, part, size) for part in ("train", "test"))
    model = build(flags, "probe")
    ends: list[float] = []
    clock = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: ends.append(time.perf_counter())
    )
    model.fit(
        *train,
        batch_size=BATCH,
        epochs=flags.peer_epochs,
        verbose=0,
        callbacks=[clock],
    )
    model.evaluate(*test, batch_size=128, verbose=0)
    # Without the first, which compiles.
    print(json.dumps(measuring.gaps(ends)))


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


def run(command: list[str], environment: dict[str, str]) -> tuple[float, str]:
    """Runs a command to its end; returns its seconds and its last line."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", *command],
        check=True,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    return time.perf_counter() - began, done.stdout.strip().splitlines()[-1]


def probe_round(flags: argparse.Namespace) -> dict[str, float]:
    """Runs all from files to test metrics; tflearn with nothing kept."""
    found = {}
    environment = os.environ | {
        "KERAS_BACKEND": flags.backend,
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    for name, tolerance in (("tflearn", 0.01), ("exact", 0.0)):
        with tempfile.TemporaryDirectory() as work:
            declared = [
                *bindings(flags, "probe"),
                f"EPOCHS = '{EPOCHS} epochs'",
                "data.Data.augment = ()",
                f"experiment.Stage.cache_tolerance = {tolerance}",
            ]
            command = [
                "tflearn.run",
                "--gin_file=runs/image/cifar10_scratch.gin",
                "--gin_file=regimes/frozen.gin",
                *(f"--gin_bindings={x}" for x in declared),
                f"--output_dir={work}/run",
            ]
            kept = {"TFLEARN_CACHE": f"{work}/cache"}
            found[name], _ = run(command, environment | kept)
    command = ["benchmarks.image", "--contender=probe", f"--folder={flags.folder}"]
    command += [f"--network={flags.network}", f"--peer_epochs={flags.peer_epochs}"]
    peer = f"keras {flags.peer_backend}"
    peered = environment | {"KERAS_BACKEND": flags.peer_backend}
    seconds, said = run(command, peered)
    missing = EPOCHS - flags.peer_epochs
    found[peer] = measuring.extrapolated(seconds, json.loads(said), missing)
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
    both = [
        Contender(name=name, prepare=kind, environment={"KERAS_BACKEND": backend})
        for name, kind, backend in (
            ("tflearn", "ours", flags.backend),
            (f"keras {flags.peer_backend}", "keras", flags.peer_backend),
        )
    ]
    return measuring.compare(
        "benchmarks.image",
        both,
        repeats=flags.repeats,
        flags=[
            f"--folder={flags.folder}",
            f"--steps={flags.steps}",
            f"--network={flags.network}",
        ],
    )


def main() -> None:
    parser = measuring.parser(__doc__)
    parser.add_argument("--folder", required=True, help="an image folder or its tar")
    parser.add_argument("--what", default="scratch", choices=WHAT)
    parser.add_argument("--network", default="small", choices=tuple(NETWORKS))
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--peer_epochs", type=int, default=EPOCHS)
    parser.add_argument("--peer_backend", help="by default the same")
    flags = parser.parse_args()
    flags.peer_backend = flags.peer_backend or flags.backend
    if not 2 <= flags.peer_epochs <= EPOCHS:
        parser.error(f"--peer_epochs lies between 2 (the first compiles) and {EPOCHS}")
    flags.folder = str(pathlib.Path(flags.folder).absolute())
    if flags.contender == "probe":
        keras_probe(flags)
        return
    if flags.contender:
        measuring.serve({"ours": ours, "keras": keras_fit}[flags.contender], flags)
        return
    probe, network = flags.what == "probe", NETWORKS[flags.network]
    found = measure_probe(flags) if probe else measure_scratch(flags)
    key, unit = ("seconds", "s") if probe else ("per_second", "images/s")
    summary = measuring.summarize(found, key)
    title = f"linear probe on {network.title}, 10 epochs"
    title = title if probe else f"{network.title} from scratch"
    title += f", {network.sizes[flags.what]} pixels, CIFAR-10 folder of 5,000 images"
    measuring.show(title, summary, unit)
    record = {"question": title, "unit": unit, "summary": summary, "contenders": found}
    if probe:
        record["peer_epochs"] = flags.peer_epochs
    measuring.write(
        f"image_{flags.what}_{flags.network}_{flags.backend}",
        record,
        results=flags.results,
    )


if __name__ == "__main__":
    main()
