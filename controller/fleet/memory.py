"""Whether a fleet's workers fit into memory together, as `paragone inspect` measures it.

What a checkpoint takes is the worker's knowledge: it is asked as a program. Checkpoints that are
small beside the host's free memory are not: a question costs seconds.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import psutil
from pydantic import BaseModel, ValidationError

from controller.fleet.commands import ProcessKind, ProcessPlan, paths_in
from controller.fleet.spec import FleetSpec
from controller.fleet.worker_spec import WorkerSpec
from controller.protocol.fleet import Quantisation

# In float32 beside 16-bit files, and with a context, workers on the CPU take about so many times
# their files.
_PER_FILE_BYTE: Final = 3

# CPU workers whose files come to less than this part of the free memory are not inspected.
_SMALL_PART: Final = 0.1

# Nor are these for a cluster, whose free memory is another every time.
_NOT_INSPECTED_BYTES: Final = 2**30

# Python, torch and the rest of a worker, before any weights.
_PROCESS_BYTES: Final = 2**30

# Folders on a slow network file system take a while.
_INSPECT_SECONDS: Final = 300

# Flags that a worker has and `inspect` does not, with their one value.
_SERVING_FLAGS: Final = frozenset(
    {
        "--host",
        "--port",
        "--controller-address",
        "--worker-address",
        "--lora",
        "--limit-model-concurrency",
        "--max-queue",
        "--threads",
    }
)


class _Card(BaseModel):
    dtype: str | None = None
    quantisation: str = "none"


class _Held(BaseModel):
    held: str
    weights: int
    least: int


class _Device(BaseModel):
    device: str
    free: int | None = None


class _Inspected(BaseModel):
    """What `paragone inspect --json` prints, as far as it is used here; bytes."""

    card: _Card
    memory: list[_Held]
    devices: list[_Device]

    def needed(self) -> _Held | None:
        """What the way in which this worker holds its weights takes."""
        held = self.card.quantisation
        if held == Quantisation.NONE.value:
            held = self.card.dtype or ""
        return next((entry for entry in self.memory if entry.held == held), None)


def memory_problems(spec: FleetSpec, plans: Sequence[ProcessPlan]) -> list[str]:
    """The devices on which the workers that are to be started would not fit together.

    Args:
        spec: the fleet.
        plans: what is to be started; other processes of the fleet have their memory already.

    Returns:
        A text for each device that is too small, or for each checkpoint that cannot be inspected.
    """
    workers = [plan for plan in plans if plan.kind is ProcessKind.WORKER]
    by_name = {worker.name: worker for worker in spec.workers}
    wanted = [plan for plan in workers if _is_local(by_name[plan.spec_name])]
    if not wanted or _are_small([by_name[plan.spec_name] for plan in wanted]):
        return []
    # One at a time would keep people waiting, all at once the machine.
    with ThreadPoolExecutor(max_workers=2) as pool:
        answers = list(pool.map(_inspect, wanted))
    problems = [answer for answer in answers if isinstance(answer, str)]
    pairs = zip(wanted, answers, strict=True)
    known = [(plan, answer) for plan, answer in pairs if isinstance(answer, _Inspected)]
    return problems + _too_small(known)


def memory_on_hosts(
    spec: FleetSpec, plans: Sequence[ProcessPlan]
) -> tuple[dict[str, int], list[str]]:
    """What workers on the CPU take of their host's memory; hub names are left out.

    Args:
        spec: the fleet.
        plans: the workers.

    Returns:
        Bytes by process, and a text for each checkpoint that cannot be inspected.
    """
    by_name = {worker.name: worker for worker in spec.workers}
    wanted = [plan for plan in plans if _is_local(by_name[plan.spec_name])]
    sizes = {plan.name: _size_of_files(by_name[plan.spec_name]) for plan in wanted}
    large = [plan for plan in wanted if sizes[plan.name] > _NOT_INSPECTED_BYTES]
    needs = {name: _PROCESS_BYTES + _PER_FILE_BYTE * size for name, size in sizes.items()}
    problems = []
    with ThreadPoolExecutor(max_workers=2) as pool:
        for plan, answer in zip(large, pool.map(_inspect, large), strict=True):
            if isinstance(answer, str):
                problems.append(answer)
            elif (needed := answer.needed()) is not None:
                needs[plan.name] = _PROCESS_BYTES + needed.least
    return needs, problems


def _size_of_files(worker: WorkerSpec) -> int:
    folders = (worker.model_path, worker.model_base, *worker.loras.values())
    return _size_in(folder for folder in folders if folder)


def _size_in(folders: Iterable[str]) -> int:
    files = [file for folder in folders for file in Path(folder).glob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


def _is_local(worker: WorkerSpec) -> bool:
    """A hub's checkpoint may have to be fetched first; its worker says if it does not fit."""
    return worker.model_path.startswith("/")


def _are_small(workers: Sequence[WorkerSpec]) -> bool:
    if any(worker.device != "cpu" for worker in workers) and Path("/dev/nvidiactl").exists():
        return False
    size = sum(_size_of_files(worker) for worker in workers)
    return size < _SMALL_PART * psutil.virtual_memory().available


def _inspect(plan: ProcessPlan) -> _Inspected | str:
    words = iter(plan.args)
    flags = []
    for word in words:
        if word in _SERVING_FLAGS:
            next(words)
        else:
            flags.append(word)
    flags[0:2] = [flags[1]]  # --model-path PATH: what inspect takes as it stands
    command = [sys.executable, "-P", "-m", "worker.inspect", *flags, "--json"]
    try:
        result = subprocess.run(  # noqa: S603 - our own program
            command,
            env=plan.environ(os.environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_INSPECT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"{plan.name}: its checkpoint was not read within {_INSPECT_SECONDS} s"
    try:
        return _Inspected.model_validate_json(result.stdout)
    except ValidationError:
        said = (result.stderr or result.stdout).strip().splitlines() or ["nothing"]
        return f"{plan.name}: its checkpoint cannot be inspected: {said[-1]}"


def _too_small(known: Sequence[tuple[ProcessPlan, _Inspected]]) -> list[str]:
    needs: dict[str, dict[str, int]] = defaultdict(dict)  # device -> process -> bytes
    free: dict[str, int] = {}
    shared: set[tuple[str, ...]] = set()
    for plan, inspected in known:
        needed = inspected.needed()
        gpus = [device for device in inspected.devices if device.device.startswith("cuda")]
        devices = gpus or [device for device in inspected.devices if device.device == "cpu"]
        if needed is None or not devices:
            continue
        amount = needed.least + _size_in(path for before, path in paths_in(plan.args) if before)
        if not gpus and "--no-mmap" not in plan.args:
            # Workers on the CPU map the same files into the same memory.
            weights = (plan.args[1], needed.held)
            amount -= needed.weights if weights in shared else 0
            shared.add(weights)
        for device in devices:
            name = _physical(device.device, plan.env)
            needs[name][plan.name] = amount // len(devices)
            if device.free is not None:
                free[name] = min(device.free, free.get(name, device.free))
    problems = []
    for name, by_process in needs.items():
        total = sum(by_process.values())
        if name in free and total > free[name]:
            parts = ", ".join(f"{process} {_gib(n)}" for process, n in by_process.items())
            problems.append(
                f"{name}: {_gib(total)} are needed and {_gib(free[name])} are free ({parts}); use "
                f"8bit or 4bit, other GPUs, or fewer workers (--skip-memory-check starts anyway)"
            )
    return problems


def _physical(device: str, env: Mapping[str, str]) -> str:
    """A GPU by its index on the machine, and not among those that a process may see."""
    visible = [word for word in env.get("CUDA_VISIBLE_DEVICES", "").split(",") if word]
    _, _, index = device.partition(":")
    if index.isdigit() and int(index) < len(visible):
        return f"GPU {visible[int(index)]}"
    return f"GPU {index}" if index else "this machine's memory"


def _gib(amount: int) -> str:
    return f"{amount / 2**30:.2f} GiB"
