"""Runs each client's entry of docs/clients.md against a fleet; writes docs/clients-tried.txt.

An entry is a script below ``entries``; what it needs is installed into a folder of its own. It is
given CONTROLLER, PICTURE, TOOL (where it is installed) and ROOT, and fails if its client does.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import httpx

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
REPORT = ROOT / "docs" / "clients-tried.txt"
PICTURE = ROOT / "webui" / "examples" / "three-shapes.png"
# What has to be in each entry's output: the demo's answer to what it is asked.
ANSWER = "a red circle at the top left, a blue star in the centre"
SECONDS = 900  # imports of gigabytes of packages on a busy machine
MODELS = ("demo-llava", "demo-llava-4bit", "demo-llava-8bit", "demo-llava-zh")


@dataclass(frozen=True)
class Client:
    """One entry: its script, what installs it, and what its output has to hold."""

    name: str
    pip: tuple[str, ...] = ()
    npm: tuple[str, ...] = ()
    says: str = ANSWER


CLIENTS = (
    Client("curl"),
    Client("openai", pip=("openai",)),
    Client("llm", pip=("llm",)),
    Client("langchain", pip=("langchain-openai",)),
    Client("promptfoo", npm=("promptfoo",), says="2 passed (100%)"),
    Client("lmms-eval", pip=("lmms-eval",), says="|shapes|none  |     0|exact |↑  |    1|"),
    Client("open-webui", pip=("open-webui",)),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="which; all by default")
    parser.add_argument("--controller", default="http://127.0.0.1:21001")
    parser.add_argument("--tools", type=Path, default=ROOT / "var" / "clients")
    parser.add_argument("--install", action="store_true", help="install what is not there yet")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - {client.name for client in CLIENTS}
    if unknown:
        parser.error(f"no such client: {', '.join(sorted(unknown))}")
    if missing := missing_models(arguments.controller):
        print(
            f"{', '.join(missing)}: no model of that name answers at {arguments.controller} yet; "
            f"start ./scripts/demo, wait until it is ready, or name its --controller",
            file=sys.stderr,
        )
        return 1
    report, failed = [], []
    for client in CLIENTS:
        if arguments.names and client.name not in arguments.names:
            continue
        tool = arguments.tools.resolve() / client.name
        if arguments.install:
            install(client, tool)
        if (client.pip or client.npm) and not tool.is_dir():
            print(f"{client.name}: not installed below {arguments.tools}; --install does")
            failed.append(client.name)
            continue
        code, output = attempt(client, tool, arguments.controller)
        is_right = code == 0 and client.says in output
        print(f"{client.name}: {'answered' if is_right else f'FAILED ({code})'}")
        if not is_right:
            failed.append(client.name)
            print(output)
        report.append(f"== {client.name} ==\n\n{output.strip()}\n")
    if not arguments.names and not failed:
        REPORT.write_text("\n".join(report), encoding="utf-8")
        print(f"written: {REPORT.relative_to(ROOT)}")
    return 1 if failed else 0


def missing_models(controller: str) -> list[str]:
    """Those of the demo's models that are not listed there; all where nobody answers."""
    try:
        listed = httpx.get(f"{controller}/v1/models", trust_env=False, timeout=10).json()["data"]
    except (httpx.HTTPError, ValueError, KeyError):
        return list(MODELS)
    return [name for name in MODELS if name not in {entry["id"] for entry in listed}]


def install(client: Client, tool: Path) -> None:
    """Into a folder of its own; what is there already stays."""
    if tool.is_dir():
        return
    if client.pip:
        subprocess.run([sys.executable, "-m", "venv", tool], check=True)
        subprocess.run([tool / "bin" / "pip", "install", "-q", *client.pip], check=True)
    if client.npm:
        subprocess.run(["npm", "install", "--prefix", tool, *client.npm], check=True)


def attempt(client: Client, tool: Path, controller: str) -> tuple[int, str]:
    """The entry's exit status and what it printed, without what differs from run to run."""
    folder = HERE / "entries" / client.name
    with tempfile.TemporaryDirectory() as work:
        shutil.copytree(folder, work, dirs_exist_ok=True)
        environ = os.environ | {
            "CONTROLLER": controller,
            "PICTURE": str(PICTURE),
            "ROOT": str(ROOT),
            "TOOL": str(tool),
            "HOME": work,
            "NO_PROXY": "*",
            "HF_HUB_OFFLINE": "1",
        }
        process = subprocess.Popen(
            ["bash", "-euo", "pipefail", "run.sh"],
            cwd=work,
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # with the client, and whatever it started
            output = f"{process.communicate()[0]}\nnot done within {SECONDS} s"
        output = output.replace(work, "WORK").replace(str(ROOT), "ROOT")
    return process.returncode, re.sub(r"\x1b\[[0-9;]*m", "", output)


if __name__ == "__main__":
    sys.exit(main())
