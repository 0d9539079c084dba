"""The fleet file as Compose, systemd, Slurm and Kubernetes have it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from controller.fleet.fleet_file import FleetFileError, load_fleet_file, parse_fleet
from controller.fleet.render import render_fleet
from tests.fleet.test_cli import DEMO, ROOT, paragone

FLEET = """
env: {SHARED: 'a $b "c" 100%'}
controller: {port: 7001}
web: {port: 7002}
workers:
  - {name: Big.One, model_path: /checkpoints/big, gpus: [2, 3], port: 7003}
  - {name: two, model_path: owner/name, model_base: /bases/big, port: 7004, device: cpu,
     replicas: 2, args: [--log-level, debug]}
  - {name: blind, model_path: /checkpoints/big, gpus: [], port: 7010}
  - {name: any, model_path: /other/big, port: 7008, loras: {zh: /loras/big, hub: owner/lora}}
"""


@pytest.fixture
def spec():
    return parse_fleet(FLEET, source="f.yaml", folder=Path("/"))


def render(spec, target: str) -> dict[str, str]:
    return render_fleet(spec, Path("f.yaml"), target)


def test_the_compose_file_of_the_repository_is_the_demos():
    (text,) = render_fleet(load_fleet_file(DEMO), Path("configs/demo.yaml"), "compose").values()
    assert (ROOT / "docker-compose.yml").read_text() == text, (
        "run paragone fleet render configs/demo.yaml --to compose > docker-compose.yml"
    )


def test_compose_reserves_the_gpus_of_each_worker_and_no_others(spec):
    services = yaml.safe_load(render(spec, "compose")["docker-compose.yml"])["services"]
    assert list(services) == ["controller", "big-one", "two", "two-2", "blind", "any", "web"]

    def devices(name: str) -> list[dict[str, object]]:
        return services[name]["deploy"]["resources"]["reservations"]["devices"]

    gpu = {"driver": "nvidia", "capabilities": ["gpu"]}
    assert devices("big-one") == [{**gpu, "device_ids": ["2", "3"]}]
    assert devices("any") == [{**gpu, "count": 1}]
    assert "deploy" not in services["two"]
    assert "deploy" not in services["blind"]
    assert services["blind"]["environment"]["CUDA_VISIBLE_DEVICES"] == ""
    assert "CUDA_VISIBLE_DEVICES" not in services["big-one"]["environment"]


def test_a_compose_file_in_another_folder_names_what_is_relative_from_there(tmp_path):
    path = tmp_path / "f.yaml"
    path.write_text("workers: [{name: a, model_path: ./out/a, port: 1, model_base: ./b}]")
    result = paragone(
        "fleet", "render", str(path), "--to", "compose", "--out", str(tmp_path / "out")
    )
    assert result.stdout == f"{tmp_path}/out/docker-compose.yml\n", result.stderr
    text = (tmp_path / "out" / "docker-compose.yml").read_text()
    worker = yaml.safe_load(text)["services"]["a"]
    assert [each["source"] for each in worker["volumes"]] == ["./a", f"{tmp_path}/b"]
    assert worker["build"]["context"] == str(ROOT), "the folder with docker/worker.Dockerfile"


def test_files_that_cannot_be_written_are_no_traceback(tmp_path):
    (tmp_path / "file").touch()
    result = paragone("fleet", "render", str(DEMO), "--to", "slurm", "--out", f"{tmp_path}/file")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == f"{tmp_path}/file cannot be written: File exists\n"


@pytest.mark.parametrize("target", ["compose", "kubernetes"])
@pytest.mark.parametrize("names", [("a.b", "a-b"), ("Controller", "b")])
def test_names_that_would_be_one_hosts_are_refused(target, names):
    workers = ", ".join(
        f"{{name: {name}, model_path: /a, port: {port}}}" for port, name in enumerate(names, 1)
    )
    fleet = parse_fleet(f"workers: [{workers}]", source="f", folder=Path("/"))
    with pytest.raises(FleetFileError, match=r"would both be '(a-b|controller)' for"):
        render(fleet, target)
    assert render(fleet, "slurm")


def test_compose_gives_each_worker_its_profile_its_health_and_its_folders(spec):
    services = yaml.safe_load(render(spec, "compose")["docker-compose.yml"])["services"]
    worker = services["two-2"]
    assert worker["profiles"] == ["workers", "two-2"]
    assert "http://127.0.0.1:7005/ready" in worker["healthcheck"]["test"][-1]
    assert worker["volumes"] == [
        {"type": "bind", "source": "/bases/big", "target": "/models/1/big", "read_only": True}
    ]
    words = worker["command"]
    assert words[words.index("--model-base") + 1] == "/models/1/big"
    assert words[words.index("--controller-address") + 1] == "http://controller:7001"
    assert words[words.index("--worker-address") + 1] == "http://two-2:7005"
    assert "profiles" not in services["controller"]
    assert services["controller"]["ports"] == ["127.0.0.1:7001:7001"]
    assert services["controller"]["image"] != worker["image"]
    assert worker["environment"]["SHARED"] == 'a $$b "c" 100%'


def test_adapters_are_mounted_and_named_where_they_are_inside(spec):
    services = yaml.safe_load(render(spec, "compose")["docker-compose.yml"])["services"]
    assert [(each["source"], each["target"]) for each in services["any"]["volumes"]] == [
        ("/other/big", "/models/2/big"),
        ("/loras/big", "/models/3/big"),
    ]
    inside = ["--lora", "zh=/models/3/big", "--lora", "hub=owner/lora"]
    assert _adapters(services["any"]["command"]) == inside
    documents = yaml.safe_load_all(render(spec, "kubernetes")["paragone.yaml"])
    pods = {
        d["metadata"]["name"]: d["spec"]["template"]["spec"]
        for d in documents
        if "vlm-any" in str(d)
    }
    container = pods["vlm-any"]["containers"][0]
    assert _adapters(container["args"]) == inside
    assert "/models/3/big" in [mount["mountPath"] for mount in container["volumeMounts"]]
    here = "--lora zh=/loras/big --lora hub=owner/lora"
    assert here in render(spec, "slurm")["workers-1gpu.sbatch"]
    assert here in render(spec, "systemd")["paragone-worker@7008.service.d/fleet.conf"]


def _adapters(words: list[str]) -> list[str]:
    first = words.index("--lora")
    return words[first : first + 4]


def test_every_file_that_an_image_is_made_of_is_there():
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    for service in services.values():
        dockerfile = ROOT / service["build"]["dockerfile"]
        for line in dockerfile.read_text().splitlines():
            if line.startswith("COPY "):
                for source in line.split()[1:-1]:
                    assert (ROOT / source).exists(), source
        for volume in service.get("volumes", []):
            assert (ROOT / volume["source"]).is_dir()


def test_kubernetes_has_replicas_gpus_and_an_address_for_each_pod(spec):
    documents = list(yaml.safe_load_all(render(spec, "kubernetes")["paragone.yaml"]))
    by_name = {(d["kind"], d["metadata"]["name"]): d for d in documents}
    assert set(by_name) == {
        *(("Deployment", f"vlm-{n}") for n in ("controller", "web", "big-one")),
        *(("Deployment", f"vlm-{n}") for n in ("two", "blind", "any")),
        *(("Service", f"vlm-{n}") for n in ("controller", "web")),
    }
    assert by_name["Deployment", "vlm-two"]["spec"]["replicas"] == 2

    def container(name: str) -> dict:
        return by_name["Deployment", name]["spec"]["template"]["spec"]["containers"][0]

    assert container("vlm-big-one")["resources"] == {"limits": {"nvidia.com/gpu": 2}}
    assert container("vlm-any")["resources"] == {"limits": {"nvidia.com/gpu": 1}}
    assert "resources" not in container("vlm-two")
    assert "resources" not in container("vlm-blind")
    assert {"name": "CUDA_VISIBLE_DEVICES", "value": ""} in container("vlm-blind")["env"]
    words = container("vlm-two")["args"]
    assert words[words.index("--worker-address") + 1] == "http://$(POD_IP):7004"
    assert container("vlm-two")["env"][0]["name"] == "POD_IP"


def test_systemd_takes_the_units(spec, tmp_path):
    files = render(spec, "systemd")
    assert "paragone-worker@7005.service.d/fleet.conf" in files
    pinned = files["paragone-worker@7003.service.d/fleet.conf"]
    assert "Environment=CUDA_VISIBLE_DEVICES=2,3\n" in pinned
    assert r'Environment="SHARED=a $b \"c\" 100%%"' in pinned
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd is not here")
    (tmp_path / "paragone-worker@7003.service").symlink_to("paragone-worker@.service")
    units = ["paragone-worker@7003.service", "paragone-controller.service", "paragone.target"]
    result = subprocess.run(
        ["systemd-analyze", "verify", *(f"./{unit}" for unit in units)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")


# Stands in for `python -P -m worker`: says how it was called, and ends once it is asked to.
_WORKER = """#!/usr/bin/env bash
sleep 300 >/dev/null 2>&1 &
trap 'kill %1; echo drained >> {out}; exit 0' TERM
printf '<%s>' "$@" >> {out}
wait
"""


def test_the_slurm_scripts_are_arrays_by_gpus(spec):
    scripts = render(spec, "slurm")
    assert set(scripts) == {"workers-0gpu.sbatch", "workers-1gpu.sbatch", "workers-2gpu.sbatch"}
    assert "#SBATCH --array=0-2\n" in scripts["workers-0gpu.sbatch"]
    assert "export CUDA_VISIBLE_DEVICES=''\n" in scripts["workers-0gpu.sbatch"]
    assert "--gres" not in scripts["workers-0gpu.sbatch"]
    assert "#SBATCH --gres=gpu:2\n" in scripts["workers-2gpu.sbatch"]


@pytest.mark.parametrize(("number", "requeued"), [("USR1", True), ("TERM", False)])
def test_a_slurm_task_drains_its_worker_and_queues_again_only_when_time_is_up(
    spec, tmp_path, number, requeued
):
    script, python, out = tmp_path / "s.sbatch", tmp_path / "python", tmp_path / "out"
    script.write_text(render(spec, "slurm")["workers-0gpu.sbatch"])
    python.write_text(_WORKER.format(out=out))
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(f'#!/usr/bin/env bash\necho "$@" >> {out}\n')
    for program in (python, scontrol):
        program.chmod(0o755)
    command = f"bash {script} & job=$!; until [[ -s {out} ]]; do sleep 0.05; done; sleep 0.2; "
    command += f"kill -{number} $job; wait $job"
    result = subprocess.run(
        ["bash", "-c", command],
        env={
            "PATH": f"{tmp_path}:/usr/bin:/bin",
            "PARAGONE_CONTROLLER_URL": "http://head:21001",
            "PARAGONE_PYTHON": str(python),
            "SLURMD_NODENAME": "node7",
            "SLURM_ARRAY_JOB_ID": "12",
            "SLURM_ARRAY_TASK_ID": "1",
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    said = out.read_text()
    assert "<--controller-address><http://head:21001><--worker-address><http://node7:7005>" in said
    assert "drained" in said
    assert ("requeue 12_1" in said) is requeued


@pytest.mark.parametrize("target", ["compose", "kubernetes", "slurm"])
def test_certificates_of_this_machine_are_not_rendered_for_others(target):
    text = "workers: [{name: a, model_path: ./m, port: 1, args: [--tls-cert, c.pem]}]"
    spec = parse_fleet(text, source="f.yaml", folder=Path("/fleets"))
    assert "--tls-cert" in render(spec, "systemd")["paragone-worker@1.service.d/fleet.conf"]
    with pytest.raises(FleetFileError, match="a: certificates are those of this machine"):
        render(spec, target)


def test_several_files_are_written_to_a_folder(tmp_path):
    assert paragone("fleet", "render", str(DEMO), "--to", "systemd").returncode == 0
    result = paragone("fleet", "render", str(DEMO), "--to", "slurm", "--out", str(tmp_path / "s"))
    assert result.stdout == f"{tmp_path}/s/workers-0gpu.sbatch\n"
    assert (tmp_path / "s" / "workers-0gpu.sbatch").read_text().startswith("#!/usr/bin/env bash\n")
