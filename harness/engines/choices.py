"""Which next tokens the choices of one request hang on, so that they are scored by few single steps, not in full.

Choices after one context are a tree of tokens: at each node some of them go on, in one or another way. One step at a
node gives the log-probabilities of all its ways at once and may use the prefix cache, which scoring a text in full may
not. A choice scores the sum along its path. Plain arithmetic: no engine is asked here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

Pairs = list[tuple[list[int], list[int]]]  # per choice: the ids of its context and its own
Node = tuple[int, ...]  # the beginning that some choices share

BLOCK = 128  # tokens at most that a step computes again although their prefix was cached
MOST = 128  # ways at a node: what vLLM gives log-probabilities of in one step
WINDOW = 64  # requests of which the first nodes are asked together, and then the next ones


def nodes(pairs: Pairs) -> dict[Node, list[int]]:
    """Every node with its ways, the shorter beginnings first."""
    ways: dict[Node, set[int]] = {}
    for _, choice in pairs:
        for i, token in enumerate(choice):
            ways.setdefault(tuple(choice[:i]), set()).add(token)
    return {node: sorted(ways[node]) for node in sorted(ways, key=lambda node: (len(node), node))}


def in_steps(pairs: Pairs) -> bool:
    """Whether steps can score these choices, and take less than a pass for each."""
    context = pairs[0][0]
    if any(other != context for other, _ in pairs):
        return False
    tree = nodes(pairs)
    if max(map(len, tree.values())) > MOST:
        return False
    size = len(context)
    return len(tree) == 1 or size + (len(tree) - 1) * min(size, BLOCK) < len(pairs) * size


def order(encoded: Sequence[Pairs], chosen: Sequence[int]) -> Iterator[tuple[int, Node, list[int]]]:
    """(request, node, ways), so that a node comes a while after the one before it, and not too long."""
    for first in range(0, len(chosen), WINDOW):
        window = [(i, nodes(encoded[i])) for i in chosen[first : first + WINDOW]]
        for depth in range(max(len(node) for _, tree in window for node in tree) + 1):
            for i, tree in window:
                yield from ((i, node, ways) for node, ways in tree.items() if len(node) == depth)


def scores(pairs: Pairs, tables: Mapping[Node, Mapping[int, float]]) -> tuple[tuple[float, ...], tuple[bool, ...]]:
    """Log-probability of every choice, and whether no token of it had a likelier rival.

    tables: of each node the log-probabilities of its ways and of the likeliest token of all.
    """
    found = [[(tables[tuple(c[:i])], token) for i, token in enumerate(c)] for _, c in pairs]
    logprobs = tuple(sum(table[token] for table, token in path) for path in found)
    return logprobs, tuple(all(table[token] >= max(table.values()) for table, token in path) for path in found)
