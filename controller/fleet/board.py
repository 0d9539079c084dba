"""The live board of `paragone up`: a row for each process, below its log lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from controller.fleet.place import ProcessKeeper
from controller.fleet.restart import ProcessState
from controller.protocol.fleet import WorkerState, WorkerStatus


def board_rows(keepers: Sequence[ProcessKeeper], statuses: Mapping[str, WorkerStatus]) -> list[str]:
    """Name, state, process id, restarts and load of each process.

    Args:
        keepers: the processes.
        statuses: what the controller knows of workers, by address.
    """
    rows = []
    width = max((len(keeper.plan.name) for keeper in keepers), default=0)
    for keeper in keepers:
        status = None if keeper.url is None else statuses.get(keeper.url)
        row = f"{keeper.plan.name:<{width}}  {_state(keeper, status):<18}"
        row += f"  pid {keeper.pid or '-':<8}  restarts {keeper.restarts:<3}"
        if keeper.place:
            row += f"  on {keeper.place}"
        if keeper.state is ProcessState.PENDING:
            row += f"  {keeper.reason}"
        if status is not None and keeper.state is ProcessState.READY:
            load = status.load
            row += f"  running {load.running}/{load.capacity}  waiting {load.waiting}"
        rows.append(row.rstrip())
    return rows


def _state(keeper: ProcessKeeper, status: WorkerStatus | None) -> str:
    if keeper.state is not ProcessState.STARTING or status is None:
        return str(keeper.state.value)
    if status.state is WorkerState.FAILED:
        return status.state.value
    if status.progress is not None:
        return f"{status.progress.phase} {status.progress.fraction:.0%}"
    return str(keeper.state.value)
