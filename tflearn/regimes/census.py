"""The census: what a regime did to every layer."""

from __future__ import annotations

import collections
import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class CensusRow:
    """One layer that owns weights.

    Args:
        path: Path of the layer, such as `backbone/transformer_layer_0/query`.
        parameters: Number of weights it owns itself.
        trainable: How many of them the optimizer moves.
        role: `trained`, `fresh`, `adapter` (trains inside a frozen layer), `frozen`,
            or `unused` (feeds no output).
        rule: The rule that decided.
    """

    path: str
    parameters: int
    trainable: int
    role: str
    rule: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Census:
    """All layers that own weights, in the order of the model."""

    rows: tuple[CensusRow, ...]

    @property
    def parameters(self) -> int:
        """Number of weights of the model."""
        return sum(row.parameters for row in self.rows)

    @property
    def trainable(self) -> int:
        """Number of weights the optimizer moves."""
        return sum(row.trainable for row in self.rows)

    @property
    def adapter_parameters(self) -> int:
        """Number of weights of adapters that train."""
        return sum(row.parameters for row in self.rows if row.role == "adapter")

    def paths(self, *roles: str) -> tuple[str, ...]:
        """Returns the paths of the layers with one of some roles."""
        return tuple(row.path for row in self.rows if row.role in roles)

    def to_json(self) -> list[dict[str, object]]:
        """Returns the rows gathered by block: neighbours of one parent and role.

        Returns:
            One dict a group: `path`, `layers`, `parameters`, `trainable`, `frozen`,
            `role`, `rule`.
        """
        groups: dict[tuple[str, str, str], list[CensusRow]] = collections.defaultdict(
            list
        )
        for row in self.rows:
            block = "/".join(row.path.split("/")[:2])
            groups[block, row.role, row.rule].append(row)
        return [
            {
                "path": block,
                "layers": len(rows),
                "parameters": sum(row.parameters for row in rows),
                "trainable": sum(row.trainable for row in rows),
                "frozen": sum(row.parameters - row.trainable for row in rows),
                "role": role,
                "rule": rule,
            }
            for (block, role, rule), rows in groups.items()
        ]
