"""The demo's example questions, a JSON line each."""

import json
import os
from pathlib import Path

folder = Path(os.environ["ROOT"]) / "webui" / "examples"
for example in json.loads((folder / "examples.json").read_text(encoding="utf-8"))["examples"]:
    for prompt in example["prompts"]:
        line = {
            "image": str(folder / example["image"]),
            "question": prompt["prompt"],
            "answer": prompt["answer_en"],
        }
        print(json.dumps(line))
