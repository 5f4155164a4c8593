"""What a prefix gives, read off its outputs or off their shapes alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tflearn.data.examples import Examples
from tflearn.training.features.examples import Arrays, FeatureExamples, Field
from tflearn.training.stage import Prepared

if TYPE_CHECKING:
    from tflearn.training.features.plan import Plan


def stored(prepared: Prepared, dtype: str) -> str:
    """Returns the type that features of some type are kept in."""
    declared = prepared.stage.cache_dtype
    return declared if declared != "auto" and "float" in dtype else dtype


def given(
    prepared: Prepared, planned: Plan, outputs: Mapping[str, Any]
) -> tuple[Field, ...]:
    """Returns the fields that came out of a prefix, masks too.

    Args:
        prepared: The stage.
        planned: What is cached; its fields know which tensors have a value a token.
        outputs: By name, anything with a shape `(batch, ...)` and a type.
    """
    known = {field.name: field for field in planned.fields}
    fields = []
    for name, values in outputs.items():
        field = known.get(name) or known[name.removesuffix("_mask")]
        # In a lower precision it is given in another type than it is taken in.
        dtype = field.dtype if name in known else str(values.dtype)
        fields.append(
            dataclasses.replace(
                field,
                name=name,
                shape=tuple(values.shape[2 if field.by_token else 1 :]),
                dtype=dtype,
                stored=stored(prepared, dtype),
            )
        )
    return tuple(fields)


def features(planned: Plan, examples: Examples, arrays: Arrays) -> FeatureExamples:
    """Puts features in the place of the examples that they were computed of."""
    return FeatureExamples(
        examples,
        planned.fields,
        arrays,
        names=planned.prefix.takes,
        takes=planned.suffix.takes,
        mapped=planned.place == "disk",
    )
