"""Where a weight sits: the einsum that a layer with a kernel is.

Dense, EinsumDense, Conv and Embedding layers all contract their inputs with a kernel.
With the letters of that contraction one implementation of every adapter serves them
all, attention projections with several axes included: the axes of the kernel that the
output does not have are summed over (together PEFT's `in_features`), the others
remain (its `out_features`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import keras
from keras import ops

from tflearn.support.errors import RegimeError

_CONVOLUTIONS = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
_TRANSPOSED = (
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Site:
    """The contraction `inputs,kernel->outputs` of a layer.

    Args:
        inputs: Letters of the inputs; `...` stands for leading axes.
        kernel: Letters of the kernel.
        outputs: Letters of the outputs.
        rank: A letter that none of them has, for the low-rank axis.
    """

    inputs: str
    kernel: str
    outputs: str
    rank: str

    @property
    def summed(self) -> str:
        """Axes of the kernel that are summed over."""
        return "".join(x for x in self.kernel if x not in self.outputs)

    @property
    def kept(self) -> str:
        """Axes of the kernel that the outputs have."""
        return "".join(x for x in self.kernel if x in self.outputs)

    @property
    def shared(self) -> str:
        """Axes that inputs, kernel and outputs all have, such as groups."""
        return "".join(x for x in self.kept if x in self.inputs)

    @property
    def features(self) -> str:
        """Axes of the inputs that are summed over."""
        return "".join(x for x in self.summed if x in self.inputs)

    @property
    def down(self) -> str:
        """Letters of the low-rank factor at the inputs."""
        return self.shared + self.summed + self.rank

    @property
    def up(self) -> str:
        """Letters of the low-rank factor at the outputs."""
        new = "".join(x for x in self.kept if x not in self.shared)
        return self.shared + self.rank + new

    def shape(self, host: keras.Layer, letters: str, *, rank: int = 0) -> tuple:
        """Returns sizes of axes.

        Args:
            host: The layer.
            letters: Of which axes.
            rank: Size of the low-rank axis.
        """
        sizes = dict(zip(self.kernel, kernel_shape(host), strict=True))
        return tuple((sizes | {self.rank: rank})[x] for x in letters)

    def fan_in(self, host: keras.Layer) -> int:
        """Returns how many products an output sums over."""
        return math.prod(self.shape(host, self.summed))

    def project(self, host: keras.Layer, inputs: Any, factor: Any) -> Any:
        """Contracts inputs with a factor of letters `down`."""
        if isinstance(host, keras.layers.Embedding):
            return ops.take(factor, ops.cast(inputs, "int32"), axis=0)
        if isinstance(host, _CONVOLUTIONS):
            return host.convolution_op(inputs, ops.convert_to_tensor(factor))
        return ops.einsum(f"{self.inputs},{self.down}->{self._hidden}", inputs, factor)

    def lift(self, hidden: Any, factor: Any) -> Any:
        """Contracts what `project` returned with a factor of letters `up`."""
        return ops.einsum(f"{self._hidden},{self.up}->{self.outputs}", hidden, factor)

    def delta(self, down: Any, up: Any) -> Any:
        """Returns the kernel that the two factors are."""
        return ops.einsum(f"{self.down},{self.up}->{self.kernel}", down, up)

    def norm(self, kernel: Any) -> Any:
        """Returns the length of the kernel's vectors, one for each kept index."""
        axes = [self.kernel.index(x) for x in self.summed]
        return ops.sqrt(ops.sum(ops.square(kernel), axis=axes))

    def scale(self, tensor: Any, factors: Any, *, letters: str, over: str) -> Any:
        """Multiplies a tensor along some of its axes.

        Args:
            tensor: Of letters `letters`.
            factors: Of letters `over`.
            letters: `self.inputs`, `self.kernel` or `self.outputs`.
            over: Some of these letters.
        """
        return ops.einsum(f"{letters},{over}->{letters}", tensor, factors)

    @property
    def _hidden(self) -> str:
        if self.features and not set(self.summed) - set(self.inputs):
            rest = "".join(x for x in self.inputs if x not in self.summed)
            return rest + self.rank
        # A convolution or a lookup: its axes are those of the outputs.
        return self.outputs.replace(self.kept, self.rank)


def find_site(host: keras.Layer) -> Site | None:
    """Returns the contraction of a layer, or None if it is of no known kind.

    Args:
        host: A built layer.

    Example:

    >>> dense = keras.layers.EinsumDense("abc,cde->abde", (None, 2, 4))
    >>> site = find_site(dense)
    >>> site.summed, site.kept
    ('c', 'de')
    """
    if isinstance(host, keras.layers.Dense):
        return Site(inputs="...x", kernel="xy", outputs="...y", rank="z")
    if isinstance(host, keras.layers.Embedding):
        return Site(inputs="...", kernel="xy", outputs="...y", rank="z")
    if isinstance(host, keras.layers.EinsumDense):
        inputs, rest = host.equation.replace(" ", "").split(",")
        kernel, outputs = rest.split("->")
        rank = next(x for x in "zyxwvutsrqponm" if x not in host.equation)
        return Site(inputs=inputs, kernel=kernel, outputs=outputs, rank=rank)
    if isinstance(host, _CONVOLUTIONS) and not isinstance(host, _TRANSPOSED):
        window = "hij"[: host.rank]
        if host.data_format == "channels_last":
            inputs, outputs = "...x", "...y"
        else:
            inputs, outputs = (f"b{x}{'klm'[: host.rank]}" for x in "xy")
        return Site(inputs=inputs, kernel=f"{window}xy", outputs=outputs, rank="z")
    return None


def site_of(host: keras.Layer) -> Site:
    """Returns the contraction of a layer.

    Args:
        host: A built layer.

    Raises:
        RegimeError: Its kind is not known.
    """
    site = find_site(host)
    if site is None:
        raise RegimeError(
            "this layer has no kernel that an adapter knows",
            received=f"{host.name} ({type(host).__name__})",
            expected="Dense, EinsumDense, Conv1D, Conv2D, Conv3D or Embedding",
        )
    return site


def kernel_of(host: keras.Layer) -> keras.Variable:
    """Returns the variable of a layer that holds its kernel."""
    names = ("kernel", "embeddings")
    return next(x for x in host.weights if x.name in names)


def kernel_shape(host: keras.Layer) -> tuple[int, ...]:
    """Returns the shape of a layer's kernel, whatever it is stored as."""
    if isinstance(host, keras.layers.Embedding):
        return (host.input_dim, host.output_dim)
    packed = getattr(host, "original_kernel_shape", None)
    return tuple(packed or host.kernel.shape)


@contextlib.contextmanager
def before_activation(host: keras.Layer) -> Iterator[Callable[[Any], Any]]:
    """Lets a layer return what it has before its activation.

    Args:
        host: Calls inside the `with` block leave the activation out.

    Yields:
        That activation.
    """
    # An adapter adds to what the kernel makes, not to what becomes of it. The
    # attribute is put back before anything else can see it. A reversible embedding
    # has a cap on its logits instead.
    name = "logit_soft_cap" if hasattr(host, "logit_soft_cap") else "activation"
    if name not in vars(host):
        yield lambda outputs: outputs
        return
    kept = vars(host)[name]
    vars(host)[name] = None
    try:
        if name == "activation":
            yield kept or (lambda outputs: outputs)
        else:
            yield (
                lambda logits: (
                    logits if kept is None else kept * ops.tanh(logits / kept)
                )
            )
    finally:
        vars(host)[name] = kept
