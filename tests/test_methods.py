"""The registry of methods, their parameters, and the rules of stacking."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint
from typing import Any, ClassVar

import pytest

from harness import methods
from harness.errors import HarnessError, Problems, Refused
from harness.matrix import TrainSettings
from harness.methods.base import Method, Stage, check_stack, stage_stack
from harness.training.adapters import make
from harness.training.curation import curate, is_identity
from tests.training import offer_methods


class Mine(Method):
    name: ClassVar[str] = "mine"


class OtherLoss(Method):
    name: ClassVar[str] = "other-loss"

    def loss(self, tok: Any, ctx: Any) -> Any:
        return -tok.logp


def test_every_method_of_ours_loads_under_its_name_and_states_a_version() -> None:
    assert {"base", "sft", "lora", "dft"} <= set(methods.names())
    for name in methods.OURS:
        assert methods.load(name).name == name
        assert methods.load(name).version >= 1


def test_planning_imports_no_torch_and_only_the_named_method() -> None:
    code = (
        "import sys, harness.methods as m, harness.training.adapters as a\n"
        "stack = m.build((('lora', {'r': 8}), ('dft', {})))\n"
        "a.make('native').check(stack)\n"
        "assert 'harness.methods.sft' not in sys.modules\n"
        "heavy = {'torch', 'transformers', 'peft', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_unknown_method_names_the_nearest() -> None:
    with pytest.raises(HarnessError, match="unknown method `loraa`") as caught:
        methods.load("loraa")
    assert 'did you mean "lora"?' in str(caught.value)


def test_unknown_parameter_names_method_and_nearest_parameter() -> None:
    with pytest.raises(HarnessError, match="method `lora` has no parameter `alpa`") as caught:
        methods.build((("lora", {"alpa": 3}),))
    assert 'did you mean "alpha"?' in str(caught.value)


def test_all_wrong_parameters_are_reported_together() -> None:
    with pytest.raises(Problems) as caught:
        methods.build((("lora", {"alpa": 3, "r": -1, "dropout": "much"}),))
    text = str(caught.value)
    assert all(part in text for part in ("`alpa`", "parameter `r`", "parameter `dropout`"))


def test_a_method_without_parameters_says_so() -> None:
    with pytest.raises(HarnessError) as caught:
        methods.build((("sft", {"lr": 1}),))
    assert "`sft` has no parameters" in str(caught.value)


def test_defaults_are_filled_in_and_read_as_attributes() -> None:
    (lora,) = methods.build((("lora", {"r": 4}),))
    assert (lora.r, lora.alpha) == (4, 32.0)  # type: ignore[attr-defined]
    assert lora.params.model_dump()["target_modules"] == "all-linear"


def _offer(monkeypatch: pytest.MonkeyPatch, *points: tuple[str, str]) -> None:
    offer_methods(monkeypatch, *(EntryPoint(name=n, value=v, group=methods.GROUP) for n, v in points))


def test_a_method_of_another_package_is_found_through_its_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    _offer(monkeypatch, ("mine", "tests.test_methods:Mine"))
    assert "mine" in methods.names()
    assert isinstance(methods.build((("mine", {}),))[0], Mine)


def test_a_package_that_takes_one_of_our_names_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    _offer(monkeypatch, ("sft", "tests.test_methods:Mine"))
    with pytest.raises(HarnessError, match="two packages offer a method named `sft`"):
        methods.names()


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("tests.test_methods:Missing", "cannot be imported"),
        ("no_such_package:X", "cannot be imported"),
        ("tests.test_methods:make", "not a subclass"),
        ("tests.test_methods:OtherLoss", "calls itself `other-loss`"),
    ],
)
def test_a_broken_entry_point_is_a_clear_error(monkeypatch: pytest.MonkeyPatch, value: str, says: str) -> None:
    _offer(monkeypatch, ("mine", value))
    with pytest.raises(HarnessError, match=says):
        methods.load("mine")


def test_two_owners_of_the_loss_are_refused_by_name() -> None:
    with pytest.raises(Refused, match="`dft` and `other-loss` both change `loss`"):
        check_stack((*methods.build((("dft", {}),)), OtherLoss()))


def test_base_cannot_be_stacked() -> None:
    with pytest.raises(Refused, match="`base` does not train"):
        methods.build((("base", {}), ("lora", {})))


def test_choosing_base_weights_beside_a_method_that_freezes_them_is_refused() -> None:
    class Chooser(Method):
        name = "chooser"

        def train_only(self, names: Any, ctx: Any) -> Any:
            return list(names)[:1]

    with pytest.raises(Refused, match="`chooser` chooses among the base's weights, `lora` freezes them"):
        check_stack((*methods.build((("lora", {}),)), Chooser()))


def test_two_ways_of_averaging_are_refused() -> None:
    class Rows(Mine):
        norm = "rows"

    class Weights(Mine):
        norm = "weights"

    with pytest.raises(Refused, match="both set `norm`"):
        check_stack((Rows(), Weights()))


def test_members_that_a_stage_brings_stand_after_the_owner_of_stages() -> None:
    class Staged(Mine):
        def stages(self, ctx: Any) -> list[Stage]:
            return [Stage("one", run=(brought,)), Stage("two", run=(brought,), alone=True)]

    first, staged, last, brought = Mine(), Staged(), Mine(), OtherLoss()
    one, two = staged.stages(None)
    assert stage_stack((first, staged, last), one) == (first, staged, brought, last)
    assert stage_stack((first, staged, last), two) == (brought,)
    with pytest.raises(Refused, match="`dft` and `other-loss`"):
        make("native").check((*methods.build((("dft", {}),)), staged))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"reward": lambda self, rolls, ctx: None}, "changes `reward`, and nothing in its stack samples"),
        ({"respond": lambda self, model, request, ctx: None}, "hook `respond`"),
        ({"rollouts": {"n": 4, "seeds": 1}}, "sets `rollouts`, and its `seeds` is wrong"),
        ({"load": {"quantization": "nf4"}}, "sets `load`"),
        ({"needs": frozenset({"judge"})}, "needs `judge`"),
    ],
)
def test_what_the_native_trainer_does_not_do_is_refused_by_name(change: dict[str, Any], says: str) -> None:
    method = type("Wants", (Mine,), {"name": "wants", **change})()
    with pytest.raises(Refused, match=f"`wants` .*{says}"):
        make("native").check((method,))


def test_unknown_trainer_adapter_names_the_known_ones() -> None:
    with pytest.raises(HarnessError) as caught:
        make("nativ")
    assert 'did you mean "native"?' in str(caught.value)


def test_settings_are_those_of_the_matrix() -> None:
    assert {"budget", "lr", "batch_size", "micro_batch"} <= set(TrainSettings.model_fields)


class Halve(Method):
    name: ClassVar[str] = "halve"

    def curate(self, rows: list[Any], ctx: Any) -> Any:
        return rows[::2]


class Split(Method):
    name: ClassVar[str] = "split"
    sets = frozenset({"held"})

    def curate(self, rows: list[Any], ctx: Any) -> Any:
        return {"train": [{**rows[0], "extra": 1}], "held": [*rows[1:], {"id": "new"}]}


ROWS = [{"id": str(i)} for i in range(4)]


def test_curation_without_curators_is_the_identity() -> None:
    stack = methods.build((("lora", {}), ("dft", {})))
    assert is_identity(stack)
    assert curate(stack, ROWS, seed=0) == ({"train": ROWS}, [])


def test_curation_composes_and_leaves_a_ledger() -> None:
    sets, ledger = curate((Halve(), Split()), ROWS, seed=0)
    assert [r["id"] for r in sets["train"]] == ["0"]
    assert [r["id"] for r in sets["held"]] == ["2", "new"]
    assert [(e["by"], e["id"], e["change"]) for e in ledger] == [
        ("halve", "1", "dropped"),
        ("halve", "3", "dropped"),
        ("split", "0", "changed"),
        ("split", "new", "added"),
    ]


def test_only_the_last_curator_may_split() -> None:
    with pytest.raises(Refused, match="`split` splits the rows into sets, and `halve` curates after it"):
        check_stack((Split(), Halve()))
    check_stack((Halve(), Split()))


def test_a_set_of_rows_that_is_not_declared_is_named() -> None:
    class Quiet(Split):
        sets = frozenset()

    with pytest.raises(HarnessError, match="`split` gives the set of rows `held`, which it does not name"):
        curate((Quiet(),), ROWS, seed=0)


def test_a_curator_that_leaves_nothing_is_named() -> None:
    class Nothing(Method):
        name = "nothing"

        def curate(self, rows: Any, ctx: Any) -> Any:
            return []

    with pytest.raises(HarnessError, match="`nothing` left no rows"):
        curate((Nothing(),), ROWS, seed=0)
