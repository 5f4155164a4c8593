"""Which dimension of a variable tensor parallelism splits, by the kind of its layer.

The first matrix of a pair is split by its outputs, the second by its inputs: so each
device computes its own heads, or its own part of an MLP's hidden units, and one sum a
pair joins them (Megatron-LM, Shoeybi et al. 2019). The names are those that KerasHub's
backbones give their layers.
"""

from __future__ import annotations

from tflearn.support.patterns import matches

#: Patterns of paths with the layout of a rank. The first that fits both decides.
TABLE: tuple[tuple[str, tuple[str | None, ...]], ...] = (
    # Gemma keeps heads first: (heads, hidden, head_dim).
    ("*decoder_block_*/attention/*/kernel", ("model", None, None)),
    # (hidden, heads, head_dim)
    ("*/query/kernel|*/key/kernel|*/value/kernel", (None, "model", None)),
    (
        "*/*query_dense/kernel|*/*key_dense/kernel|*/*value_dense/kernel",
        (None, "model", None),
    ),
    # (heads, head_dim, hidden)
    ("*/*output*/kernel|*/output_dense/kernel", ("model", None, None)),
    ("*/query/kernel|*/key/kernel|*/value/kernel", (None, "model")),
    # (hidden, inner)
    (
        "*intermediate*/kernel|*gate*/kernel|*gating*/kernel|*/mlp/dense_1/kernel"
        "|*/mlp/dense/kernel|*/wi*/kernel|*/up_proj/kernel",
        (None, "model"),
    ),
    # (inner, hidden)
    (
        "*output*/kernel|*/ffw_linear/kernel|*/mlp/dense_2/kernel|*/wo/kernel"
        "|*/down_proj/kernel",
        ("model", None),
    ),
    # (hidden, vocabulary)
    ("*/reverse_embeddings", (None, "model")),
    # (positions, hidden): divided, it would divide the activations it is added to, and
    # every block would have to gather them.
    ("*position_embedding/embeddings", (None, None)),
    # (vocabulary, hidden)
    ("*/embeddings", ("model", None)),
)


def tensor_layout(path: str, rank: int) -> tuple[str | None, ...] | None:
    """Returns the layout of a variable under tensor parallelism.

    Args:
        path: Its path.
        rank: Number of its dimensions.

    Returns:
        An axis or None for every dimension, only None where it has to stay whole; None
        if the table does not know it.

    Example:

    >>> tensor_layout("backbone/layer_0/self_attention/query/kernel", 3)
    (None, 'model', None)
    """
    for pattern, layout in TABLE:
        if len(layout) == rank and matches(pattern, path):
            return layout
    return None
