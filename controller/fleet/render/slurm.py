"""Slurm batch scripts: arrays of workers that register with a controller elsewhere."""

from __future__ import annotations

import shlex
from collections import defaultdict

from controller.fleet.commands import ProcessPlan, plan_fleet
from controller.fleet.render.placing import (
    EVERY_INTERFACE,
    gpu_count,
    placed_args,
    placed_env,
)
from controller.fleet.spec import FleetSpec

# Stand in for what only the job knows; no flag's value looks like them.
_CONTROLLER = "@controller@"
_ADDRESS = "@address@"

_SCRIPT = """\
#!/usr/bin/env bash
# {header}
#
#   export PARAGONE_CONTROLLER_URL=http://HOST:21001   # a controller that the nodes reach
#   export PARAGONE_WORKER_FLEET_TOKEN=...             # the controller's --fleet-token
#   sbatch {file}
#
# The checkpoints' folders and Python (PARAGONE_PYTHON, else python) are those of this machine:
# they have to be on the nodes too, as on a shared file system.
#SBATCH --job-name=paragone
#SBATCH --array=0-{last}
#SBATCH --output=paragone-%A_%a.log
#SBATCH --open-mode=append
#SBATCH --requeue
{gres}# Two minutes before the time is up: drain, and queue again.
#SBATCH --signal=B:USR1@120
set -uo pipefail

: "${{PARAGONE_CONTROLLER_URL:?set it to a controller that the nodes reach}}"
: "${{PARAGONE_WORKER_GRACE_SECONDS:=100}}" # running answers end within it
export PARAGONE_WORKER_GRACE_SECONDS PYTHONUNBUFFERED=1
python=${{PARAGONE_PYTHON:-python}}
node=${{SLURMD_NODENAME:-$(hostname)}}

case "$SLURM_ARRAY_TASK_ID" in
{cases}
*)
    echo "there is no worker $SLURM_ARRAY_TASK_ID: the array is 0-{last}" >&2
    exit 2
    ;;
esac

wanted=""
stop() {{
    wanted=$1
    kill -TERM "$worker" 2>/dev/null
}}
trap 'stop requeue' USR1
trap 'stop end' TERM INT

"$python" -P -m worker "${{args[@]}}" &
worker=$!
# A trapped signal ends `wait`, not the worker.
wait "$worker"
status=$?
while kill -0 "$worker" 2>/dev/null; do
    wait "$worker"
    status=$?
done
if [[ $wanted == requeue ]]; then
    exec scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}"
fi
[[ $wanted == end ]] && exit 0
exit "$status"
"""


def render(spec: FleetSpec, header: str) -> dict[str, str]:
    """A script for each number of GPUs, as the tasks of one array all get the same."""
    by_gpus: dict[int, list[ProcessPlan]] = defaultdict(list)
    gpus = {worker.name: gpu_count(worker) for worker in spec.workers}
    for plan in plan_fleet(spec, cores=1):
        if plan.spec_name:
            by_gpus[gpus[plan.spec_name]].append(plan)
    return {
        (file := f"workers-{count}gpu.sbatch"): _SCRIPT.format(
            header=header,
            file=file,
            last=len(plans) - 1,
            gres=f"#SBATCH --gres=gpu:{count}\n" if count else "",
            cases="\n".join(_case(index, plan) for index, plan in enumerate(plans)),
        )
        for count, plans in sorted(by_gpus.items())
    }


def _case(index: int, plan: ProcessPlan) -> str:
    args = placed_args(
        plan,
        {
            "--host": EVERY_INTERFACE,
            "--controller-address": _CONTROLLER,
            "--worker-address": _ADDRESS,
        },
    )
    words = [
        {_CONTROLLER: '"$PARAGONE_CONTROLLER_URL"', _ADDRESS: f'"http://$node:{plan.port}"'}.get(
            arg, shlex.quote(arg)
        )
        for arg in args
    ]
    exports = "".join(
        f"    export {key}={shlex.quote(value)}\n" for key, value in placed_env(plan).items()
    )
    return f"{index}) # {plan.name}\n{exports}    args=({' '.join(words)})\n    ;;"
