"""Where a fleet is to run, as far as that needs no cluster."""

from __future__ import annotations

from controller import cli
from controller.fleet import actions
from tests.fleet.test_cli import paragone


def test_without_ray_it_is_said_how_to_get_it_and_how_to_do_without(
    write_fleet, monkeypatch, capsys, tmp_path
):
    monkeypatch.setenv("PARAGONE_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setattr(actions, "find_spec", lambda _name: None)
    assert cli.main(["up", str(write_fleet([])), "--on", "ray"]) == 1
    said = capsys.readouterr().err
    assert "--on ray needs ray, which" in said
    assert "pip install 'paragone[ray]'" in said
    assert "leave out --on ray" in said


def test_waiting_for_nodes_is_refused_where_there_are_none(write_fleet):
    result = paragone("up", str(write_fleet([])), "--wait-for-nodes")
    assert result.returncode == 1
    assert "  - --wait-for-nodes is for clusters: --on ray\n" in result.stderr


def test_nor_does_a_fleet_that_runs_without_nodes_wait_for_any(start_fleet, tmp_path):
    fleet = start_fleet([])
    fleet.wait_for_line("Paragone is ready")
    before = fleet.pids
    result = paragone("up", str(tmp_path / "fleet.yaml"), "--wait-for-nodes")
    assert result.returncode == 1
    assert "nothing was changed:\n  - --wait-for-nodes is for clusters" in result.stderr
    assert fleet.pids == before


def test_a_fleet_of_this_machine_is_not_moved_to_a_cluster_in_silence(start_fleet, tmp_path):
    fleet = start_fleet([])
    fleet.wait_for_line("Paragone is ready")
    result = paragone("up", str(tmp_path / "fleet.yaml"), "--on", "ray")
    assert result.returncode == 1
    assert "runs on this machine, not on ray: `paragone down` first" in result.stderr
    assert fleet.pids["w0"]
