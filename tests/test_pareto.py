"""The front of score against cost."""

import random

from harness.results.pareto import front


def test_the_cheapest_of_the_best_are_on_the_front() -> None:
    assert front([(1, 0.2), (2, 0.5), (3, 0.4), (4, 0.9)]) == [True, True, False, True]


def test_equal_points_stand_together_and_ties_in_one_value_go_to_the_better_other() -> None:
    assert front([(1, 0.5), (1, 0.5), (1, 0.4), (2, 0.5)]) == [True, True, False, False]


def test_unknown_values_are_never_on_the_front() -> None:
    assert front([(None, 0.9), (1, None), (float("nan"), 1.0), (2, 0.1)]) == [False, False, False, True]
    assert front([]) == []


def test_as_by_definition() -> None:
    draw = random.Random(0)
    for _ in range(200):
        points = [(draw.randint(0, 5), draw.randint(0, 5)) for _ in range(8)]
        beaten = [
            any(c <= cost and s >= score and (c, s) != (cost, score) for c, s in points) for cost, score in points
        ]
        assert front(points) == [not b for b in beaten]
