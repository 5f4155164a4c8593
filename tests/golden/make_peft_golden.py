"""Writes `peft.npz`: what PEFT computes with tiny layers and adapters.

Made with peft 0.21.2, torch 2.13.0 (CPU), Python 3.11:

    python -m venv peft && peft/bin/pip install torch==2.13.0 peft==0.21.2
    peft/bin/python tests/golden/make_peft_golden.py

A case is a layer with an adapter whose weights are all random. Stored by case: the
layer's weights, the adapter's, an input, the output, an upstream gradient of ones
weighted by `upstream`, and the gradients of the adapter's weights. All in the layout
of torch; the test turns them.
"""

import pathlib

import numpy as np
import peft
import torch

RANK, ALPHA = 2, 6.0


class Holder(torch.nn.Module):
    """A model of one layer, as PEFT wants it."""

    def __init__(self, layer):
        super().__init__()
        self.target = layer

    def forward(self, inputs):
        return self.target(inputs)


def layers():
    """Returns a layer and an input by name."""
    ids = torch.tensor([[0, 3, 6], [2, 2, 5]])
    return {
        "linear": (torch.nn.Linear(5, 4), torch.randn(3, 5)),
        "conv2d": (torch.nn.Conv2d(3, 4, (3, 2), stride=2), torch.randn(2, 3, 7, 6)),
        "embedding": (torch.nn.Embedding(7, 4), ids),
    }


def configs(layer: str):
    """Returns PEFT configurations by kind for a layer."""
    shared = {"r": RANK, "lora_alpha": ALPHA, "target_modules": ["target"]}
    found = {
        "lora": peft.LoraConfig(**shared),
        "rslora": peft.LoraConfig(**shared, use_rslora=True),
        "dora": peft.LoraConfig(**shared, use_dora=True),
    }
    if layer != "embedding":
        names = {"target_modules": ["target"]}
        found["ia3"] = peft.IA3Config(**names, feedforward_modules=[])
        found["ia3_feedforward"] = peft.IA3Config(
            **names, feedforward_modules=["target"]
        )
    return found


def weights_of(model):
    """Returns the adapter's parameters by what they are."""
    names = {
        "lora_A": "a",
        "lora_B": "b",
        "lora_embedding_A": "a",
        "lora_embedding_B": "b",
        "lora_magnitude_vector": "magnitude",
        "ia3_l": "scale",
    }
    found = {}
    for path, parameter in model.named_parameters():
        for part in path.split("."):
            if part in names:
                found[names[part]] = parameter
    return found


def main():
    """Writes the file."""
    torch.manual_seed(0)
    arrays = {}
    for name in ("linear", "conv2d", "embedding"):
        for kind in configs(name):
            layer, inputs = layers()[name]
            case = f"{name}/{kind}"
            for key, value in layer.named_parameters():
                arrays[f"{case}/{key}"] = value.detach().numpy().copy()
            model = peft.get_peft_model(Holder(layer), configs(name)[kind])
            model.eval()
            for key, parameter in weights_of(model).items():
                with torch.no_grad():
                    # The lengths of DoRA must stay positive.
                    shift = 1.0 if key in ("magnitude", "scale") else 0.0
                    parameter.copy_(torch.rand_like(parameter) - 0.5 + shift)
                parameter.requires_grad_(True)
                arrays[f"{case}/adapter/{key}"] = parameter.detach().numpy().copy()
            outputs = model(inputs)
            upstream = torch.rand_like(outputs)
            (outputs * upstream).sum().backward()
            arrays[f"{case}/inputs"] = inputs.numpy()
            arrays[f"{case}/outputs"] = outputs.detach().numpy()
            arrays[f"{case}/upstream"] = upstream.numpy()
            for key, parameter in weights_of(model).items():
                arrays[f"{case}/gradient/{key}"] = parameter.grad.numpy()
    path = pathlib.Path(__file__).with_name("peft.npz")
    np.savez_compressed(path, **arrays)
    print(f"{path}: {len(arrays)} arrays, peft {peft.__version__}")


if __name__ == "__main__":
    main()
