"""The index of lm-eval's task names says what the installed lm-eval says."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys

import pytest

from harness.errors import HarnessError, Refused
from harness.evaluation import index


def test_the_index_is_of_the_installed_version() -> None:
    assert index.lm_eval_version() == importlib.metadata.version("lm_eval")


@pytest.mark.slow
def test_the_index_is_what_would_be_generated_now() -> None:
    from harness.evaluation.make_index import make_index

    assert index._read() == make_index()


def test_a_task_is_described() -> None:
    entry = index.find("gsm8k")
    assert (entry.kind, entry.hub, entry.split) == ("generate_until", "hub:openai/gsm8k:main", "test")
    assert (entry.shots, entry.shot_split, entry.version) == (5, "train", "3.0")


@pytest.mark.parametrize(
    ("name", "words"), [("gsm8kk", 'did you mean "gsm8k"'), ("glue", "group"), ("minerva_math", "group")]
)
def test_a_name_that_is_no_task_is_refused(name: str, words: str) -> None:
    with pytest.raises(HarnessError) as error:
        index.find(name)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("humaneval", "fetches the code of a metric from the hub and runs the answers as code"),
        ("mbpp", "runs the answers as code"),
        ("realtoxicityprompts", "asks a web service"),
        ("squadv2", "Python class"),
        ("niah_single_1", "NLTK"),
    ],
)
def test_a_task_that_wants_the_network_or_runs_code_says_so(name: str, words: str) -> None:
    with pytest.raises(Refused) as error:
        index.usable(index.find(name))
    assert words in str(error.value)


@pytest.mark.parametrize("name", ["gsm8k", "cola", "ifeval", "truthfulqa_mc2", "mrpc", "hellaswag"])
def test_a_task_that_only_needs_its_data_is_usable(name: str) -> None:
    assert index.usable(index.find(name)).dataset


def test_looking_a_name_up_does_not_import_lm_eval() -> None:
    code = "import sys; from harness.evaluation import index; index.find('gsm8k'); print('lm_eval' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
