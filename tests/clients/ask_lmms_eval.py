"""lmms-eval: its evaluator, with a task of its own and both forms of its model `openai`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from lmms_eval.evaluator import simple_evaluate
from lmms_eval.tasks import TaskManager
from talk import arguments, talk

URL, MODEL, PICTURE = arguments()
NAME = "one_picture"
TARGET = "Newhaven"
DOCUMENTS = 32  # as many as it keeps in flight by default
TASK = {
    "task": NAME,
    "dataset_path": "imagefolder",
    "test_split": "test",
    "output_type": "generate_until",
    "doc_to_visual": "image",
    "doc_to_text": "question",
    "doc_to_target": "answer",
    "generation_kwargs": {"max_new_tokens": 32},
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
}


def write_task(question: str, folder: Path) -> None:
    """The task's file (JSON is YAML), and its pictures, which lmms-eval reads without any hub."""
    pictures = folder / "pictures" / "test"
    pictures.mkdir(parents=True)
    documents = []
    for number in range(DOCUMENTS):
        shutil.copy(PICTURE, pictures / f"{number}.png")
        documents.append({"file_name": f"{number}.png", "question": question, "answer": TARGET})
    (pictures / "metadata.jsonl").write_text("\n".join(map(json.dumps, documents)))
    where = {"data_dir": str(pictures.parent), "cache_dir": str(folder / "cache")}
    (folder / f"{NAME}.yaml").write_text(json.dumps({**TASK, "dataset_kwargs": where}))


def evaluate(tasks: TaskManager, simple: bool) -> set[str]:
    """The different answers to the task's questions; the score must agree with them."""
    results = simple_evaluate(
        model="openai",
        model_args=f"model={MODEL},base_url={URL},api_key=none,max_retries=1",
        tasks=[NAME],
        task_manager=tasks,
        batch_size=1,
        bootstrap_iters=0,
        force_simple=simple,
    )
    samples = results["samples"][NAME]
    answers = [str(answer) for sample in samples for answer in sample["filtered_resps"]]
    assert len(answers) == DOCUMENTS
    score = results["results"][NAME]["exact_match,none"]
    assert score == answers.count(TARGET) / DOCUMENTS
    return set(answers)


def ask(question: str) -> str:
    with TemporaryDirectory() as folder:
        write_task(question, Path(folder))
        tasks = TaskManager(include_path=folder, include_defaults=False)
        (answer,) = evaluate(tasks, simple=False) | evaluate(tasks, simple=True)
    return answer


talk(ask)
