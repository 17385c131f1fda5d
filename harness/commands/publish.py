"""`harness publish`: a run onto a board, the check of a board, withdrawals, and the digests that a board pins."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.commands.named import store_of, view_named, warn, where_of
from harness.commands.text import as_json, line
from harness.errors import HarnessError

if TYPE_CHECKING:
    from harness.boards.checks import Checker
    from harness.boards.findings import Finding


def publish(args: argparse.Namespace) -> int:
    """The command. 1 where something was found amiss."""
    from harness.boards.board import open_board
    from harness.boards.protocol import as_yaml, check_pins, measured_by

    _check_arguments(args)
    board = open_board(args.board)
    if args.withdraw:
        from harness.boards.pages import write_pages
        from harness.boards.publishing import withdraw

        withdraw(args.board, args.withdraw, args.why)
        write_pages(args.board, board)
        print(f"withdrew {args.withdraw}; it stays in the ledger with the reason")
        return 0
    tasks = measured_by(board, where_of(args))
    if args.protocol:
        print(as_yaml(tasks))
        return 0
    check_pins(board, tasks, args.board)
    from harness.boards.checks import Checker

    checker = Checker(args.board, board, tasks)
    return _publish(args, checker) if args.matrix else _told(args, checker.everything(), "the whole board")


def _publish(args: argparse.Namespace, checker: Checker) -> int:
    from harness.boards.pages import write_pages
    from harness.boards.publishing import for_board, publish

    store = store_of(args)
    run = for_board(view_named(args, store), checker.tasks)
    replaces = args.replaces or ()
    checker.said.update(checker.answers_on_board(replaces))
    came = publish(args.board, checker.board, store, run, check=checker.entry, replaces=replaces, dry=args.check)
    warn(store)
    if came.findings or args.check:
        return _told(args, came.findings, came.name)
    write_pages(args.board, checker.board)
    text = f"published {came.name}" if came.new else f"{came.name} is on the board already; nothing to do"
    as_json({"entry": came.name, "new": came.new, "findings": []}) if args.json else print(text)
    return 0


def _told(args: argparse.Namespace, findings: Sequence[Finding], what: str) -> int:
    if args.json:
        body = [{"file": f.file, "field": f.field, "what": f.what} for f in findings]
        as_json({"schema": "harness-check", "version": 1, "checked": what, "findings": body})
    else:
        for finding in findings:
            print(line(str(finding)))
        print(f"{what}: {len(findings)} findings" if findings else f"{what}: nothing amiss")
    return int(bool(findings))


def _check_arguments(args: argparse.Namespace) -> None:
    if args.withdraw and not args.why:
        raise HarnessError("a withdrawal needs a reason", todo="--why TEXT")
    if args.why and not args.withdraw:
        raise HarnessError("--why is the reason of a withdrawal", todo="--withdraw ENTRY --why TEXT")
    if not (args.matrix or args.withdraw or args.check or args.protocol):
        raise HarnessError(
            "name a run to publish", todo="harness publish BOARD RUN; --check, --withdraw and --protocol need none"
        )
    if args.replaces and not args.matrix:
        raise HarnessError("--replaces names what a new entry replaces", todo="name the run, too")
