"""Writes docs/benchmarks.md from the JSON files under benchmarks/results.

Run: python -m benchmarks.summary [--results FOLDER] [--output docs/benchmarks.md]
"""

from __future__ import annotations

import argparse
import json
import pathlib
from typing import Any

from benchmarks.measuring import RESULTS, ROOT

_HEAD = """# Benchmarks

Written by `python -m benchmarks.summary` from the files in `benchmarks/results`; each
is the answer of the script that is named like it. Medians of rounds in which the
contenders take turns; in brackets the lowest and the highest. The ratio says how many
times better the first line of a table is, per round.
"""


def table(name: str, record: dict[str, Any]) -> str:
    """Returns the section of one question."""
    unit = record["unit"]
    lines = [
        f"## {record['question']}",
        "",
        f"| | {unit} | ratio | share of the matrix peak |",
        "|---|---|---|---|",
    ]
    for contender, row in record["summary"].items():
        share = record.get("roofline", {}).get(contender, {}).get("share")
        lines.append(
            f"| {contender} | {row['median']:.2f} [{row['lowest']:.2f}, "
            f"{row['highest']:.2f}] | {row['ratio']:.2f} [{row['ratio_lowest']:.2f}, "
            f"{row['ratio_highest']:.2f}] | {'' if share is None else f'{share:.0%}'} |"
        )
    if record.get("plot"):
        lines += ["", f"![{record['question']}]({record['plot']})"]
    hardware, versions = record["hardware"], record["versions"]
    shown = ", ".join(
        f"{key} {versions[key]}"
        for key in ("keras", "jax", "tensorflow")
        if key in versions
    )
    lines += [
        "",
        f"`{name}.json`, {record['date']}: {hardware['processor']}, "
        f"{hardware['cores']} cores; {shown}.",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", default=str(RESULTS))
    parser.add_argument("--output", default=str(ROOT / "docs" / "benchmarks.md"))
    flags = parser.parse_args()
    sections = [_HEAD]
    for path in sorted(pathlib.Path(flags.results).glob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        rows = list(record.get("summary", {}).values())
        if rows and all("median" in row for row in rows):
            sections.append(table(path.stem, record))
        else:
            print(f"left out: {path.name} is of another form")
    text = "\n\n".join(section.strip() for section in sections)
    pathlib.Path(flags.output).write_text(text + "\n", encoding="utf-8")
    print(f"written: {flags.output}")


if __name__ == "__main__":
    main()
