"""Suite files: what ships, what is chosen, what is in a task's identity, and what goes wrong."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from harness.data.made.word_problems import SYSTEM
from harness.digest import digest
from harness.errors import HarnessError, Problems, Refused
from harness.evaluation.suite import Task, choose_tasks, load_suite, suite_names
from harness.evaluation.suite_file import TaskForm
from harness.packaged import packaged

SHIPPED = ["alignment", "code", "glue", "math", "tool_use"]
DEMO = {"math": ["gsm8k"], "code": ["humaneval"], "tool_use": ["simple_python"], "glue": ["cola", "sst2"]} | {
    "alignment": ["ifeval"]
}
MADE = {"gsm8k": "made_word_problems", "cola": "made_grammar", "sst2": "made_sentiment", "ifeval": "made_instructions"}
GENERATES = "sampling: {temperature: 0.0, max_tokens: 64, stop: []}"


def demo_tasks(mirror: Path | None = None, limit: int | None = None) -> dict[str, Task]:
    """The tasks of the demo, by name."""
    chosen = [choose_tasks(load_suite(s), only=DEMO[s], made=True, mirror=mirror, limit=limit)[0] for s in SHIPPED]
    return {t.name: t for tasks in chosen for t in tasks}


def write(folder: Path, body: str) -> str:
    """A suite file with one task `t`."""
    text = f"name: mine\ntasks:\n  t:\n    version: 1\n    regime: r\n    licence: none\n{body}"
    (folder / "mine.yaml").write_text(text)
    return str(folder / "mine.yaml")


def test_the_five_suites_ship() -> None:
    assert suite_names() == SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
def test_without_a_mirror_made_tasks_stand_in_where_the_matrix_allows_it(name: str) -> None:
    suite = load_suite(name)
    tasks, notes = choose_tasks(suite, only=DEMO[name], made=True)
    assert suite.name == name and suite.about
    assert [t.name for t in tasks] == [MADE.get(task, task) for task in DEMO[name]]
    assert all(t.source.at_hand and t.suite == name for t in tasks)
    stand_ins = [t.name for t in tasks if t.form.instead_of]
    assert len(notes) == len(stand_ins) and all(n in note for n, note in zip(stand_ins, notes, strict=True))
    if stand_ins:
        with pytest.raises(HarnessError, match="are not at hand"):
            choose_tasks(suite, only=DEMO[name])


@pytest.mark.parametrize("name", SHIPPED)
def test_with_the_mirror_the_real_data_are_used(name: str, mirror: Path) -> None:
    tasks, notes = choose_tasks(load_suite(name), only=DEMO[name], made=True, mirror=mirror)
    assert [t.name for t in tasks] == DEMO[name] and not notes
    assert all(t.source.spec.startswith(("hub:", "mirror:")) for t in tasks)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_suite_named_alone_is_measured_whole_but_for_its_extras(name: str) -> None:
    suite = load_suite(name)
    alone, everything = suite.wanted(None), suite.wanted("all")
    assert alone and set(alone) <= set(everything)
    assert not any(suite.tasks[t].extra for t in alone)
    assert not any(suite.tasks[t].instead_of for t in everything)
    assert set(DEMO[name]) <= set(alone)


@pytest.mark.parametrize("name", SHIPPED)
def test_every_mean_is_over_tasks_that_are_shown(name: str) -> None:
    suite = load_suite(name)
    for mean, parts in suite.means.items():
        assert len(parts) > 1 and set(parts) <= set(suite.wanted("all")), mean


@pytest.mark.parametrize("name", SHIPPED)
def test_all_tasks_of_a_suite_resolve_with_the_mirror_or_say_what_they_need(name: str, mirror: Path) -> None:
    suite = load_suite(name)
    for task in suite.wanted("all"):
        try:
            ((found,), _) = choose_tasks(suite, only=[task], mirror=mirror)
        except HarnessError as error:
            assert error.todo, task
        else:
            assert found.of and found.rows and found.rows <= found.of, task


def test_the_smoke_size_is_the_tasks_own(mirror: Path) -> None:
    ((task,), _) = choose_tasks(load_suite("math"), only=["gsm8k"], limit="smoke", mirror=mirror)
    assert task.rows == task.form.smoke.rows == 100 and task.of == 1319


def test_made_data_never_bear_a_benchmarks_name() -> None:
    for name in SHIPPED:
        for task, form in load_suite(name).tasks.items():
            assert task.startswith("made_") == any(d.source.startswith("make:") for d in form.data)


def test_the_answer_format_is_asked_for_in_the_words_of_the_training_data() -> None:
    assert SYSTEM in packaged("suites/tasks/number_after_hashes.yaml").read_text()


FIRST = [(suite, tasks[0]) for suite, tasks in DEMO.items()]


def test_planning_imports_nothing_heavy() -> None:
    program = (
        "import sys; from harness.evaluation.suite import choose_tasks, load_suite;"
        "[choose_tasks(load_suite(s), only=[t], made=True) for s, t in " + repr(list(FIRST)) + "];"
        "print(sorted({'torch', 'lm_eval', 'datasets', 'numpy', 'nltk', 'reasoning_gym'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_an_identity_is_stable_and_covers_what_is_asked_and_scored() -> None:
    task, again = (demo_tasks(limit=10)["made_word_problems"] for _ in range(2))
    assert (task.asking(), task.scoring()) == (again.asking(), again.scoring())
    assert digest([task.asking(), task.scoring()])
    assert {"data", "limit", "sampling", "regime", "chat", "version", "lm_eval", "task"} <= task.asking().keys()

    def changed(**more: object) -> Task:
        return replace(task, form=TaskForm(**{**task.form.model_dump(), **more}))

    others = [
        changed(version=2),
        changed(regime="other"),
        changed(sampling={"temperature": 0.0, "max_tokens": 65, "stop": []}),
        changed(chat=False),
        replace(task, limit=11),
        replace(task, source=replace(task.source, digest="0" * 64)),
    ]
    assert len({digest(t.asking()) for t in [task, *others]}) == 1 + len(others)
    assert {digest(t.scoring()) for t in [task, *others]} == {digest(task.scoring())}
    rescored = changed(scorer={"name": "lm-eval", "version": 2})
    assert rescored.asking() == task.asking() and rescored.scoring() != task.scoring()


def test_a_limit_above_the_size_is_no_limit() -> None:
    full, above = demo_tasks()["made_grammar"], demo_tasks(limit=10_000)["made_grammar"]
    assert full.asking() == above.asking() and full.rows == above.rows == full.of


def test_a_change_of_filters_in_a_task_file_scores_again_without_asking_again(tmp_path: Path) -> None:
    shutil.copytree(packaged("suites"), tmp_path / "suites")
    file = tmp_path / "suites" / "tasks" / "number_after_hashes.yaml"

    def task() -> Task:
        return choose_tasks(load_suite(str(tmp_path / "suites" / "math.yaml")), only=["made_word_problems"])[0][0]

    before = task()
    file.write_text(file.read_text().replace("group_select: -1", "group_select: 0"))
    assert task().asking() == before.asking() and task().scoring() != before.scoring()
    file.write_text(file.read_text().replace("doc_to_text: question", 'doc_to_text: "Q: {{question}}"'))
    assert task().asking() != before.asking()


def test_a_task_can_be_named(mirror: Path) -> None:
    suite = load_suite("glue")
    assert [t.name for t in choose_tasks(suite, only=["made_sentiment", "cola"], mirror=mirror)[0]] == [
        "made_sentiment",
        "cola",
    ]
    with pytest.raises(HarnessError, match="no task `sst`") as error:
        choose_tasks(suite, only=["sst"])
    assert "sst2" in error.value.todo


def test_a_named_task_without_its_data_is_refused_with_what_it_needs() -> None:
    with pytest.raises(Refused, match="data of task `gsm8k`") as error:
        choose_tasks(load_suite("math"), only=["gsm8k"])
    assert "--mirror" in error.value.todo and "math.yaml:" in error.value.where


def test_only_the_data_that_are_used_are_looked_for(tmp_path: Path) -> None:
    used = FILE.replace("test}]", "test}, {source: 'file:gone.jsonl'}]").replace("tasks/x.yaml", "made_grammar.yaml")
    shutil.copy(packaged("suites/tasks/made_grammar.yaml"), tmp_path)
    ((task,), _) = choose_tasks(load_suite(write(tmp_path, used)))
    assert task.source.spec == "make:grammar"


def test_an_unknown_suite_names_the_nearest() -> None:
    with pytest.raises(HarnessError, match="no suite `maths`") as error:
        load_suite("maths")
    assert "math" in error.value.todo


FILE = """\
    file: tasks/x.yaml
    data: [{source: 'make:grammar', split: test}]
    chat: false
    metric: acc
    chance: 0
"""


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (FILE + "    sampling: {temperature: 0.0, stop: []}\n", "max_tokens"),
        (FILE + "    sampling: {max_tokens: 5, stop: []}\n", "temperature"),
        (FILE + "    sampling: {max_tokens: 5, temperature: 0.0}\n", "stop"),
        (FILE + "    metrics: [acc]\n", "metric"),
        (FILE.replace("    chance: 0\n", ""), "chance"),
        (FILE + "    lm_eval: cola\n", "`file` or `lm_eval`"),
        (FILE + "    instead_of: u\n", "no task `u`"),
        (FILE.replace("data", "# data"), "no `data`"),
    ],
)
def test_a_mistake_in_a_suite_file_is_named_with_its_line(tmp_path: Path, body: str, words: str) -> None:
    with pytest.raises(HarnessError) as error:
        load_suite(write(tmp_path, body))
    assert words in str(error.value) and "mine.yaml:" in str(error.value)


SHIPPED_TASK = "    chat: false\n    metric: x\n    chance: 0\n"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (SHIPPED_TASK + "    lm_eval: gsm8k\n", "does not say how its answers are sampled"),
        (SHIPPED_TASK + f"    lm_eval: cola\n    {GENERATES}\n", "takes no `sampling`"),
        (SHIPPED_TASK + "    lm_eval: colla\n", 'did you mean "cola'),
        (SHIPPED_TASK + f"    lm_eval: humaneval\n    {GENERATES}\n", "runs the answers as code"),
        (SHIPPED_TASK + f"    lm_eval: gsm8k\n    {GENERATES}\n", "give --mirror DIR"),
        (SHIPPED_TASK + "    lm_eval: wikitext\n", "loglikelihood_rolling"),
        (FILE, "no such task file"),
    ],
)
def test_a_task_that_cannot_be_measured_is_refused_at_planning(tmp_path: Path, body: str, words: str) -> None:
    suite = load_suite(write(tmp_path, body))
    with pytest.raises(HarnessError) as error:
        choose_tasks(suite)
    assert words in str(error.value)


def test_all_tasks_that_cannot_be_measured_are_reported_together(tmp_path: Path) -> None:
    one = SHIPPED_TASK + "    lm_eval: cola\n"
    path = write(
        tmp_path, one + "  u:\n    version: 1\n    regime: r\n    licence: none\n" + one.replace("cola", "sst2")
    )
    with pytest.raises(Problems) as error:
        choose_tasks(load_suite(path))
    assert len(error.value.problems) == 2


def test_a_set_that_the_mirror_lacks_is_refused_with_its_name(tmp_path: Path, mirror: Path) -> None:
    with pytest.raises(Refused) as error:
        choose_tasks(load_suite(write(tmp_path, SHIPPED_TASK + "    lm_eval: hellaswag\n")), mirror=mirror)
    assert "no data set `Rowan/hellaswag`" in error.value.todo
