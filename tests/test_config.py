"""Declaring: what a gin file may say, and how each mistake is reported."""

from __future__ import annotations

import logging
import pathlib
from collections.abc import Callable

import pytest

import tflearn
from tflearn import config, experiment
from tflearn.support.declarations import literals, search
from tflearn.support.errors import ConfigError, DataError, TflearnError

PARTS = '''
"""What the declarations of these tests are made of."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import pathlib

from tflearn.support.errors import DataError

LIMIT = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    size: int = 1
    source: Callable[[], object] | None = None
    names: tuple[str, ...] | None = None
    shares: Mapping[str, float] | None = None
    words: Sequence[str] = ()
    folder: pathlib.Path | None = None


def rows(count: int = 1, *, shift: float = 0.0) -> list[int]:
    return [count]


def calls_at_once(make: Callable[[], object]) -> object:
    return make()


def gives_size(part: Part) -> Part:
    return part


def fails() -> object:
    raise DataError("no rows in it", received="a.csv", nearest="b.csv")


def breaks(anything: object = None) -> object:
    raise KeyError("lost")


def needs(one: int, *, two: int) -> int:
    return one + two


def anything(**kwargs: object) -> dict[str, object]:
    return kwargs
'''

HEADER = """\
from __gin__ import dynamic_registration
import {parts} as parts
from tflearn import experiment
from tflearn import regimes
"""

COMPLETE = (
    HEADER
    + """
SIZE = 4
RATE = 0.5

experiment.Experiment.name = 'small'
experiment.Experiment.backbone = @parts.Part
experiment.Experiment.stages = (@one/experiment.Stage(), @two/experiment.Stage())

experiment.Stage.objective = @parts.rows
experiment.Stage.optimizer = @parts.rows
experiment.Stage.batch_size = 8
experiment.Stage.regime = @regimes.partial()
regimes.partial.last = 2
parts.rows.shift = %RATE

one/experiment.Stage.name = 'one'
one/experiment.Stage.data = @one/parts.Part
one/experiment.Stage.budget = '1 epochs'
one/parts.Part.size = %SIZE
one/parts.Part.source = @parts.rows

two/experiment.Stage.name = 'two'
two/experiment.Stage.data = @two/parts.Part
two/experiment.Stage.budget = '2 epochs'
"""
)

Load = Callable[..., config.Declaration]


@pytest.fixture
def parts(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of one test, under a name of its own; the test runs in its folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    name = f"parts_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(PARTS)
    return name


@pytest.fixture
def load(parts: str, tmp_path: pathlib.Path) -> Load:
    """Writes a declaration, the complete one by default, and loads it."""

    def load_text(*bindings: str, text: str = COMPLETE) -> config.Declaration:
        path = tmp_path / "declared.gin"
        path.write_text(text.replace("{parts}", parts))
        return config.load("declared.gin", bindings)

    return load_text


def build(declaration: config.Declaration) -> experiment.Experiment:
    """Calls every factory of an experiment, as a run does."""
    made = declaration.experiment()
    made.backbone()
    for stage in made.stages:
        data = stage.data()
        if data.source is not None:
            data.source()
        stage.objective()
        stage.optimizer()
    declaration.check_all_used()
    return made


def test_a_declaration_becomes_an_experiment(load: Load) -> None:
    made = build(load())
    assert isinstance(made, experiment.Experiment)
    assert made.name == "small"
    assert [stage.name for stage in made.stages] == ["one", "two"]
    assert [stage.data().size for stage in made.stages] == [4, 1]
    assert [str(rule) for rule in made.stages[1].regime][0] == "train_last(2)"


def test_bindings_override_files_and_know_their_imports(load: Load) -> None:
    declaration = load(
        "SIZE = 9",
        "two/parts.Part.source = @parts.calls_at_once\n"
        "parts.calls_at_once.make = @parts.rows",
    )
    assert build(declaration).stages[0].data().size == 9


def test_later_files_override_earlier_ones(load: Load, tmp_path: pathlib.Path) -> None:
    load()
    (tmp_path / "more.gin").write_text("SIZE = 5\n")
    with pytest.raises(ConfigError, match="begin the file with"):
        config.load(["declared.gin", "more.gin"])
    header = "from __gin__ import dynamic_registration\n"
    (tmp_path / "more.gin").write_text(header + "SIZE = 5\n")
    declared = config.load(["declared.gin", "more.gin"]).experiment()
    assert declared.stages[0].data().size == 5


def test_the_written_text_gives_the_same_experiment(
    load: Load, tmp_path: pathlib.Path
) -> None:
    first = load("SIZE = 7")
    (tmp_path / "written.gin").write_text(first.text)
    again = config.load("written.gin")
    assert again.text == first.text
    assert "include" not in first.text
    assert build(again).stages[0].data().size == 7


def test_the_operative_text_has_the_defaults_that_were_used(load: Load) -> None:
    declaration = load()
    build(declaration)
    operative = declaration.operative_text()
    assert "experiment.Experiment.seed = 0" in operative
    assert "one/experiment.Stage.bootstrap = 1000" in operative


def test_two_declarations_live_side_by_side(load: Load) -> None:
    small, large = load("SIZE = 2"), load("SIZE = 20")
    first, second = small.experiment(), large.experiment()
    assert first.stages[0].data().size == 2
    assert second.stages[0].data().size == 20
    assert first.stages[0].data().size == 2
    with pytest.raises(ConfigError, match="another declaration was loaded"):
        large.check_all_used()


def test_direct_calls_are_unaffected(load: Load) -> None:
    load("experiment.Stage.bootstrap = 5")
    stage = experiment.Stage(
        name="s", data=list, objective=list, regime=(), optimizer=list, budget="1",
        batch_size=1,
    )  # fmt: skip
    assert stage.bootstrap == 1000


def test_files_of_one_name_for_two_modules(
    load: Load, parts: str, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "others.py").write_text("def rows() -> list[int]:\n    return [8]\n")
    (tmp_path / "included.gin").write_text(
        "from __gin__ import dynamic_registration\nimport others as parts\n"
        f"import {parts} as first\ntwo/first.Part.source = @parts.rows\n"
    )
    load(text=COMPLETE + "include 'included.gin'\n")
    made = config.load("declared.gin")
    assert build(made).stages[1].data().source() == [8]
    assert "import others as parts_2" in made.text


# What is wrong with a binding, and what the message must contain.
MISTAKES = {
    "unknown module": ("import tflern", "no module 'tflern'.*Did you mean 'tflearn'"),
    "unknown submodule": (
        "from tflearn import regime",
        "Did you mean 'tflearn.regimes'",
    ),
    "broken module": ("import {parts}_broken", "importing .* failed.*ZeroDivision"),
    "not imported": (
        "Stage.patience = 1",
        "'Stage' is not imported.*'experiment.Stage'",
    ),
    "unknown name": ("parts.row.count = 1", "'parts' has no 'row'.*'parts.rows'"),
    "unknown reference": (
        "experiment.Stage.objective = @parts.rovs",
        "'parts' has no 'rovs'.*'parts.rows'",
    ),
    "not a function": (
        "experiment.Stage.objective = @parts.LIMIT",
        "no function or class",
    ),
    "misspelt parameter": (
        "experiment.Stage.batchsize = 3",
        "no parameter 'batchsize'.*Did you mean 'batch_size'",
    ),
    "text for a number": ("SIZE = '4'", r"declared.gin:\d+ \(%SIZE.*Expected: int.*4"),
    "truth for a number": ("SIZE = True", "Received: True. Expected: int"),
    "fraction for a count": ("SIZE = 4.5", "Received: 4.5. Expected: int"),
    "text for texts": (
        "one/parts.Part.names = 'a'",
        r"Expected: tuple\[str, ...\] or None. Fix: write \('a',\)",
    ),
    "list for a tuple": ("one/parts.Part.names = ['a']", r"Fix: write \('a',\)"),
    "text for a sequence": ("one/parts.Part.words = 'a'", r"Fix: write \('a',\)"),
    "wrong element": ("one/parts.Part.names = (1, 2)", r"write \('1', '2'\)"),
    "wrong mapping": ("one/parts.Part.shares = {'train': 'all'}", "Mapping"),
    "called too early": (
        "experiment.Stage.objective = @parts.rows()",
        "a function or class .*write @parts.rows",
    ),
    "called never": (
        "experiment.Stage.regime = @regimes.full",
        r"Fix: write @regimes.full\(\)",
    ),
    "one for many": (
        "experiment.Stage.regime = @regimes.train()",
        r"Fix: write \(@regimes.train\(\),\)",
    ),
    "text for a factory": ("experiment.Experiment.backbone = 'bert'", "a function or"),
    "missing value": ("SIZE = %gin.REQUIRED", "not given:\n  SIZE .*\n.*SIZE = ..."),
    "undefined macro": ("RATE = %RATTE", "'%RATTE' is not defined.*mean 'RATE'"),
    "macro of itself": ("SIZE = %SIZE", "defined by itself"),
    "unused macro": ("SIZES = 3", "'SIZES' reaches nothing.*Did you mean 'SIZE'"),
    "unused scope": (
        "tow/parts.Part.size = 3",
        "'tow/parts.Part.size' reaches nothing.*'two/parts.Part.size'",
    ),
    "unused name": ("parts.needs.one = 3", "reaches nothing.*@parts.needs"),
    "bound twice": (
        "SIZE = 3\nSIZE = 4",
        "bound twice in one file.*Received: 4, and 3",
    ),
    "no value": ("SIZE =", "gin cannot read this"),
    "open bracket": ("SIZE = (1,", "gin cannot read this: The value is not complete"),
    "no binding": ("SIZE", "gin cannot read this"),
    "operators": ("SIZE = 1 + 1", "gin cannot read this"),
    "unhashable key": ("one/parts.Part.shares = {[1]: 2}", "gin cannot read this"),
    "missing argument": (
        "experiment.Stage.batch_size = @parts.needs()",
        "'parts.needs' is called in scope 'one' without 'one', 'two'",
    ),
    "missing include": ("include 'nowhere.gin'", "include 'nowhere.gin'.*not found"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_found_before_any_work(
    mistake: str, load: Load, parts: str, tmp_path: pathlib.Path
) -> None:
    (tmp_path / f"{parts}_broken.py").write_text("1 / 0\n")
    binding, message = MISTAKES[mistake]
    with pytest.raises(ConfigError, match=f"(?s){message}") as caught:
        load(binding.replace("{parts}", parts))
    assert "--gin_bindings=" in str(caught.value) or "declared.gin:" in str(
        caught.value
    )


def test_a_mistake_in_a_file_has_its_line(load: Load) -> None:
    wrong = COMPLETE.replace("parts.Part.size = %SIZE", "parts.Part.sise = %SIZE")
    line = wrong.splitlines().index("one/parts.Part.sise = %SIZE") + 1
    with pytest.raises(ConfigError, match=rf"declared\.gin:{line}: .*'size'"):
        load(text=wrong)


def test_all_missing_values_are_listed(load: Load) -> None:
    wanting = COMPLETE.replace("SIZE = 4", "SIZE = %gin.REQUIRED")
    wanting = wanting.replace("RATE = 0.5", "RATE = %gin.REQUIRED")
    with pytest.raises(ConfigError, match=r"(?s)SIZE \(declared.gin:6\).*RATE \(decl"):
        load(text=wanting)
    assert build(load("SIZE = 1", "RATE = 2", text=wanting))


def test_all_bindings_that_reach_nothing_are_listed(load: Load) -> None:
    with pytest.raises(ConfigError, match="(?s)tow/.*size.*nor does\n  .*towards/"):
        load("tow/parts.Part.size = 3", "towards/parts.Part.size = 3")


def test_what_an_override_leaves_behind_is_said_and_allowed(
    load: Load, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("tflearn").propagate = True
    declaration = load("experiment.Stage.regime = @regimes.full()")
    assert build(declaration)
    assert any("'regimes.partial.last' has no effect" in n for n in declaration.notes)
    assert "regimes.partial.last" in caplog.text


def test_a_factory_without_its_scope_is_found_once_it_was_called(load: Load) -> None:
    """`@parts.rows` in scope `one` is called later, when the scope is left."""
    declaration = load("one/parts.rows.count = 3")
    with pytest.raises(ConfigError, match=r"outside of the scope.*@one/parts\.rows"):
        build(declaration)
    assert build(
        load("one/parts.rows.count = 3", "one/parts.Part.source = @one/parts.rows")
    )


def test_a_factory_that_is_called_at_once_keeps_the_scope(load: Load) -> None:
    declaration = load(
        "one/experiment.Stage.data = @one/parts.calls_at_once\n"
        "one/parts.calls_at_once.make = @parts.Part"
    )
    assert build(declaration).stages[0].data().size == 4


def test_a_parameter_that_the_caller_gives_cannot_be_bound(load: Load) -> None:
    declaration = load("parts.rows.count = 3")
    made = declaration.experiment()
    made.stages[0].objective(count=5)
    with pytest.raises(ConfigError, match="'parts.rows' is called with a value for it"):
        declaration.check_all_used()


def test_keyword_arguments_of_strangers_are_let_through(load: Load) -> None:
    declaration = load("two/parts.Part.source = @parts.anything\nparts.anything.x = 1")
    assert build(declaration).stages[1].data().source() == {"x": 1}


def test_an_error_of_a_factory_comes_out_plain(load: Load) -> None:
    made = load("experiment.Experiment.backbone = @parts.fails").experiment()
    with pytest.raises(TflearnError) as caught:
        made.backbone()
    known = config.explain(caught.value)
    assert type(known) is DataError
    assert str(known) == "no rows in it. Received: a.csv. Did you mean 'b.csv'?"


def test_an_exception_of_a_stranger_names_what_was_called(load: Load) -> None:
    made = load("experiment.Experiment.backbone = @parts.breaks").experiment()
    with pytest.raises(KeyError) as caught:
        made.backbone()
    assert "calling 'breaks' as declared failed. Received: KeyError: 'lost'" in str(
        config.explain(caught.value)
    )
    assert config.explain(KeyError("a fault of tflearn")) is None


def test_an_experiment_must_be_declared(load: Load) -> None:
    with pytest.raises(ConfigError, match="no experiment is declared"):
        load(text=HEADER).experiment()
    lacking = COMPLETE.replace("experiment.Experiment.backbone = @parts.Part\n", "")
    with pytest.raises(ConfigError, match="'Experiment' is called without 'backbone'"):
        load(text=lacking)


def test_includes_resolve_beside_the_file_first(
    load: Load, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "inner").mkdir()
    header = "from __gin__ import dynamic_registration\n"
    (tmp_path / "inner" / "size.gin").write_text(header + "SIZE = 3\n")
    (tmp_path / "size.gin").write_text(header + "SIZE = 6\n")
    (tmp_path / "inner" / "both.gin").write_text(header + "include 'size.gin'\n")
    included = COMPLETE.replace("SIZE = 4", "include 'inner/both.gin'")
    declaration = load(text=included)
    assert build(declaration).stages[0].data().size == 3
    assert [pathlib.Path(file).name for file in declaration.files] == [
        "declared.gin",
        "both.gin",
        "size.gin",
    ]


def test_a_circle_of_includes(load: Load, tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.gin").write_text("include 'b.gin'\n")
    (tmp_path / "b.gin").write_text("include 'a.gin'\n")
    with pytest.raises(ConfigError, match=r"circle.*a\.gin -> .*b\.gin -> .*a\.gin"):
        config.load("a.gin")


def test_an_include_must_not_undo_what_stands_above_it(
    load: Load, tmp_path: pathlib.Path
) -> None:
    header = "from __gin__ import dynamic_registration\n"
    (tmp_path / "size.gin").write_text(header + "SIZE = 6\n")
    with pytest.raises(ConfigError, match="overrides the file that includes this one"):
        load(text=COMPLETE + "include 'size.gin'\n")


def test_files_that_cannot_be_read(load: Load, tmp_path: pathlib.Path) -> None:
    load()
    with pytest.raises(ConfigError, match="not found.*Did you mean 'quickstart/digits"):
        config.load("quickstart/digit.gin")
    with pytest.raises(ConfigError, match="not found"):
        config.load(str(tmp_path))
    with pytest.raises(ConfigError, match="gin_search_path is not a folder"):
        config.load("declared.gin", search_paths=["nowhere"])
    (tmp_path / "latin.gin").write_bytes("NAME = 'é'\n".encode("latin-1"))
    with pytest.raises(ConfigError, match="cannot be read.*utf-8"):
        config.load("latin.gin")


def test_the_order_of_the_search(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = "quickstart/digits.gin"
    assert search.find(name) == search.shipped_folder().resolve() / name
    for folder in ("mine", ""):
        path = tmp_path / folder / name
        path.parent.mkdir(parents=True)
        path.write_text("")
        assert search.find(name, search_paths=["mine"]) == path.resolve()


def test_load_for_notebooks() -> None:
    made = tflearn.load("quickstart/digits.gin", "SEED = 5")
    assert isinstance(made, experiment.Experiment)
    assert made.seed == 5
    assert made.declaration is not None


def test_the_comparison_of_a_declaration() -> None:
    seeds = "comparison.Comparison.seeds = (4,)"
    compared = config.load("quickstart/digits.gin", seeds)
    assert compared.comparison().seeds == (4,)


@pytest.mark.parametrize(
    ("value", "hint", "answer"),
    [
        (None, int | None, True),
        (None, int, False),
        (3, float, True),
        (1e3, int, False),
        (False, bool, True),
        (0, bool, False),
        ("a", str | tuple[str, ...], True),
        ((1, "a"), tuple[int, str], True),
        ((1,), tuple[int, str], False),
        ({"a": 1}, dict[str, float], True),
        ({1: 1}, dict[str, float], False),
        ("a", pathlib.Path, False),
        ([1, 2], list[int], True),
        (("a", 1), "unknown", True),
    ],
)
def test_values_against_types(value: object, hint: object, answer: bool) -> None:
    assert literals.fits(value, hint) is answer
