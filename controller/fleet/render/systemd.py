"""systemd units: a template for workers, an instance a port, and a target that holds all."""

from __future__ import annotations

import re
import sys

from controller.fleet.commands import ProcessKind, ProcessPlan, plan_fleet
from controller.fleet.render.placing import placed_args
from controller.fleet.spec import FleetSpec

_SERVICE = """\
# {header}
[Unit]
Description={description}
PartOf=paragone.target
{after}StartLimitIntervalSec=600
StartLimitBurst={burst}

[Service]
Type=exec
ExecStart={command}
{env}Restart=on-failure
RestartSec={delay:g}
# What it exits with where its settings are wrong: another try would end alike.
RestartPreventExitStatus=2
# Itself first; what it started once the grace is over.
KillMode=mixed
TimeoutStopSec={grace:g}
NoNewPrivileges=yes

[Install]
WantedBy=paragone.target
"""


def render(spec: FleetSpec, header: str) -> dict[str, str]:
    """The units, and for each worker the drop-in of its instance, by their paths."""
    plans = plan_fleet(spec, cores=1)
    files = {"paragone.target": _target(header, plans)}
    for plan in plans:
        if plan.kind is ProcessKind.WORKER:
            drop_in = f"paragone-worker@{plan.port}.service.d/fleet.conf"
            files[drop_in] = (
                f"# {header}\n[Unit]\nDescription=Paragone {_escaped(plan.name)}\n\n"
                # The empty one takes the template's away; there may be one only.
                f"[Service]\nExecStart=\nExecStart={_command(plan)}\n{_environment(plan)}"
            )
        else:
            files[f"{_unit(plan)}"] = _service(spec, header, plan)
    files["paragone-worker@.service"] = _SERVICE.format(
        header=header,
        description="Paragone worker on port %i",
        after="Wants=paragone-controller.service\nAfter=network-online.target\n",
        command=_line([sys.executable, "-P", "-m", "worker", "--port"]) + " %i",
        env="Environment=PYTHONUNBUFFERED=1\n",
        **_numbers(spec),
    )
    return files


def _numbers(spec: FleetSpec) -> dict[str, float]:
    return {
        "burst": spec.restart.max_failed_starts,
        "delay": spec.restart.first_delay_seconds,
        "grace": spec.stop_grace_seconds,
    }


def _unit(plan: ProcessPlan) -> str:
    if plan.kind is ProcessKind.WORKER:
        return f"paragone-worker@{plan.port}.service"
    return f"paragone-{plan.name}.service"


def _target(header: str, plans: list[ProcessPlan]) -> str:
    wants = "".join(f"Wants={_unit(plan)}\n" for plan in plans)
    return (
        f"# {header}\n[Unit]\nDescription=A Paragone fleet\n{wants}\n"
        "[Install]\nWantedBy=multi-user.target\n"
    )


def _service(spec: FleetSpec, header: str, plan: ProcessPlan) -> str:
    return _SERVICE.format(
        header=header,
        description=f"Paragone {plan.name}",
        after="After=network-online.target\n",
        command=_command(plan),
        env=_environment(plan),
        **_numbers(spec),
    )


def _command(plan: ProcessPlan) -> str:
    return _line([sys.executable, "-P", "-m", plan.kind.value, *placed_args(plan, {})])


def _environment(plan: ProcessPlan) -> str:
    variables = {"PYTHONUNBUFFERED": "1", **plan.env}
    return "".join(
        f"Environment={_word(f'{k}={v}', command=False)}\n" for k, v in variables.items()
    )


def _line(words: list[str]) -> str:
    return " ".join(_word(word, command=True) for word in words)


def _word(word: str, *, command: bool) -> str:
    """A word as systemd.syntax(7) and systemd.service(5) quote it."""
    text = _escaped(word)
    if command:  # variables are put into commands alone
        text = text.replace("$", "$$")
    if re.fullmatch(r"[\w@%+=:,./$-]+", text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _escaped(text: str) -> str:
    return text.replace("%", "%%")
