"""lm-evaluation-harness against the server, on a tiny task made here. Touches no network."""

import json
import math
import os
import subprocess
import sys

import httpx
import pytest

from conftest import MODEL

DOCS = [
    {"question": "What is a bill of lading?",
     "choices": ["A document from the carrier.", "xq zzv kkw", "7 7 7 7 7"], "answer": 0},
    {"question": "Why do freight rates rise?",
     "choices": ["]]]] ((((", "Because demand for ships grows.", "%%% $$$"], "answer": 1},
    {"question": "What is a port?",
     "choices": ["qqqq", "jjjj jjjj", "A place where ships load and discharge."], "answer": 2},
]
CHOICES = """task: tiny_choices
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "Question: {{{{question}}}}\\nAnswer:"
doc_to_choice: choices
doc_to_target: answer
metric_list: [{{metric: acc}}]
"""
GENERATE = """task: tiny_generate
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: generate_until
doc_to_text: "Question: {{{{question}}}}\\nAnswer:"
doc_to_target: "{{{{choices[answer]}}}}"
generation_kwargs: {{until: ["\\n", "."], max_gen_toks: 16, temperature: 0}}
metric_list: [{{metric: exact_match}}]
"""


@pytest.fixture
def tasks(tmp_path):
    data = tmp_path / "docs.jsonl"
    data.write_text("".join(json.dumps(doc) + "\n" for doc in DOCS))
    folder = tmp_path / "tasks"
    folder.mkdir()
    for name, text in (("tiny_choices", CHOICES), ("tiny_generate", GENERATE)):
        (folder / f"{name}.yaml").write_text(text.format(data=data))
    return folder


def evaluate(server, tasks, tmp_path, task, batch, *model_args):
    output = tmp_path / "out"
    arguments = ",".join(["model=demo", f"base_url={server.url}/v1/completions",
                          "num_concurrent=4", "max_retries=1", "max_length=1024", *model_args])
    done = subprocess.run(
        [sys.executable, "-m", "lm_eval", "run", "--model", "local-completions", "--model_args", arguments,
         "--tasks", task, "--include_path", str(tasks), "--output_path", str(output), "--log_samples",
         "--batch_size", str(batch)],
        capture_output=True, text=True, timeout=600, cwd=tmp_path,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "OPENAI_API_KEY": "none",
                          "HF_HOME": str(tmp_path / "hf")})
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    results = json.loads(next(output.rglob("results_*.json")).read_text())["results"][task]
    samples = [json.loads(line) for line in next(output.rglob("samples_*.jsonl")).read_text().splitlines()]
    return results, samples


# As token ids from the model's own tokenizer; as text, one prompt at a time.
TOKENIZED = ("tokenizer_backend=huggingface", f"tokenizer={MODEL}", "tokenized_requests=True")


@pytest.mark.parametrize("batch", (1, 4))
def test_scores_choices_as_the_server_does(server, tasks, tmp_path, batch):
    results, samples = evaluate(server, tasks, tmp_path, "tiny_choices", batch, *TOKENIZED)
    right = 0
    for sample in samples:
        likeliest = max(sample["filtered_resps"], key=lambda response: float(response[0]))
        right += sample["filtered_resps"].index(likeliest) == sample["doc"]["answer"]
        for choice, response in zip(sample["doc"]["choices"], sample["filtered_resps"]):
            prompt = f"Question: {sample['doc']['question']}\nAnswer:"
            scored = httpx.post(server.url + "/v1/completions", timeout=60, json={
                "model": "demo", "prompt": f"{prompt} {choice}", "max_tokens": 0, "echo": True,
                "logprobs": 1}).json()["choices"][0]["logprobs"]
            count = httpx.post(server.url + "/tokenize",
                               json={"model": "demo", "prompt": prompt}).json()["count"]
            expected = sum(scored["token_logprobs"][count:])
            assert math.isclose(float(response[0]), expected, rel_tol=1e-4), (choice, response)
    assert results["acc,none"] == pytest.approx(right / len(DOCS))
    assert right >= 1


def test_generates_until(server, tasks, tmp_path):
    _, samples = evaluate(server, tasks, tmp_path, "tiny_generate", 1, *TOKENIZED)
    for sample in samples:
        text = sample["resps"][0][0]
        assert text and "\n" not in text and "." not in text
