"""The tree of choices: its nodes, when steps pay, their order, and the scores along its paths."""

from __future__ import annotations

import math

import pytest

from harness.engines.choices import WINDOW, in_steps, nodes, order, scores

CONTEXT = list(range(300))


def test_one_token_choices_are_one_node() -> None:
    assert nodes([(CONTEXT, [7]), (CONTEXT, [5])]) == {(): [5, 7]}


def test_choices_that_share_a_beginning_share_its_nodes() -> None:
    tree = nodes([(CONTEXT, [1, 7]), (CONTEXT, [1, 5]), (CONTEXT, [2, 5, 6])])
    assert tree == {(): [1, 2], (1,): [5, 7], (2,): [5], (2, 5): [6]}


def test_steps_are_for_one_context_alone() -> None:
    assert in_steps([(CONTEXT, [1]), (CONTEXT, [2])])
    assert not in_steps([(CONTEXT, [1]), (CONTEXT[1:], [2])])


def test_steps_are_taken_where_they_compute_less() -> None:
    assert in_steps([(CONTEXT, [1, 7]), (CONTEXT, [1, 5])])
    assert not in_steps([(CONTEXT[:20], [1, 7]), (CONTEXT[:20], [1, 5])])
    assert not in_steps([(CONTEXT, [1, 2, 3, 4, 5]), (CONTEXT, [2, 2, 3, 4, 5])])
    assert not in_steps([(CONTEXT, [n]) for n in range(129)])


def test_a_node_is_asked_after_its_parent_with_others_between() -> None:
    encoded = [[(CONTEXT, [1, 7]), (CONTEXT, [1, 5])] for _ in range(WINDOW + 2)]
    asked = [(i, node) for i, node, _ in order(encoded, range(len(encoded)))]
    assert len(asked) == len(set(asked)) == 2 * len(encoded)
    places = {pair: place for place, pair in enumerate(asked)}
    apart = [places[i, (1,)] - places[i, ()] for i in range(len(encoded))]
    assert set(apart[:WINDOW]) == {WINDOW}
    assert set(apart[WINDOW:]) == {2}


def test_a_choice_scores_the_sum_along_its_path() -> None:
    pairs = [(CONTEXT, [1, 7]), (CONTEXT, [1, 5]), (CONTEXT, [2])]
    tables = {(): {1: math.log(0.5), 2: math.log(0.3)}, (1,): {7: math.log(0.2), 5: math.log(0.1), 9: math.log(0.7)}}
    logprobs, greedy = scores(pairs, tables)
    assert [math.exp(x) for x in logprobs] == pytest.approx([0.1, 0.05, 0.3])
    assert greedy == (False, False, False)
    tables[1,] = {7: math.log(0.6), 5: math.log(0.1)}
    assert scores(pairs, tables)[1] == (True, False, False)
