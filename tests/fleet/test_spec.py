"""The fleet file: what it may say, and what is said of one that is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import BaseModel

from controller.fleet.fleet_file import FleetFileError, load_fleet_file, parse_fleet
from controller.fleet.spec import FleetSpec
from controller.protocol.fleet import Quantisation

FOLDER = Path("/fleets")
ONE_WORKER = "workers: [{name: a, model_path: ./a, port: 1001}]"


def parse(text: str) -> FleetSpec:
    return parse_fleet(text, source="f.yaml", folder=FOLDER)


def complaint(text: str) -> str:
    with pytest.raises(FleetFileError) as caught:
        parse(text)
    return str(caught.value)


def test_one_worker_is_a_fleet_and_everything_else_has_a_default():
    spec = parse(ONE_WORKER)
    assert spec.controller.url == "http://127.0.0.1:21001"
    assert spec.web is None
    assert spec.workers[0].quantisation is Quantisation.NONE
    assert spec.workers[0].device == "auto"


def test_relative_folders_start_at_the_files_own_folder(tmp_path, monkeypatch):
    (tmp_path / "fleets").mkdir()
    path = tmp_path / "fleets" / "lab.yaml"
    path.write_text("workers: [{name: a, model_path: ../a, model_base: ./b, port: 1}]")
    monkeypatch.chdir("/")
    worker = load_fleet_file(path).workers[0]
    assert worker.model_path == str(tmp_path / "a")
    assert worker.model_base == str(tmp_path / "fleets" / "b")


def test_owner_and_name_is_left_for_the_hub():
    spec = parse("workers: [{name: a, model_path: liuhaotian/llava-v1.5-7b, port: 1}]")
    assert spec.workers[0].model_path == "liuhaotian/llava-v1.5-7b"


def test_a_tilde_is_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/lab")
    spec = parse("workers: [{name: a, model_path: ~/a, port: 1}]")
    assert spec.workers[0].model_path == "/home/lab/a"


def test_a_bare_name_is_neither_folder_nor_hub_name():
    assert complaint("workers: [{name: a, model_path: llava, port: 1}]") == (
        "f.yaml:1: workers[0].model_path: a folder is written ./llava, a hub name owner/name"
    )


def test_an_unknown_key_is_refused_with_its_line_and_the_closest_known_one():
    text = "workers:\n  - name: a\n    modle_path: ./a\n    model_path: ./a\n    port: 1\n"
    assert complaint(text) == (
        "f.yaml:3: workers[0].modle_path: unknown key; did you mean 'model_path'?"
    )


def test_an_unknown_key_like_no_other_is_refused_with_all_known_ones():
    message = complaint(ONE_WORKER + "\nrestart: {zzz: 1}")
    assert "f.yaml:2: restart.zzz: unknown key; known are first_delay_seconds, factor" in message


@pytest.mark.parametrize(
    ("section", "known"),
    [
        ("limits", "concurrency, queue"),
        ("loading", "dtype, device_map"),
        ("ray", "cpus, memory, resources"),
    ],
)
def test_an_unknown_key_of_a_workers_section_is_refused_with_the_known_ones(section, known):
    message = complaint(ONE_WORKER.replace("1001", f"1001, {section}: {{zzz: 1}}"))
    assert f"workers[0].{section}.zzz: unknown key; known are {known}" in message


def test_all_that_is_wrong_is_said_at_once_in_the_files_order():
    text = "webb: {}\nworkers:\n  - {name: a, port: 99999, model_path: ./a}\n  - {name: b}\n"
    assert [line.split(": ")[:2] for line in complaint(text).splitlines()] == [
        ["f.yaml:1", "webb"],
        ["f.yaml:3", "workers[0].port"],
        ["f.yaml:4", "workers[1].model_path"],
        ["f.yaml:4", "workers[1].port"],
    ]


def test_two_workers_of_one_name_are_refused():
    message = complaint(
        "workers: [{name: a, model_path: ./a, port: 1}, {name: a, model_path: ./b, port: 2}]"
    )
    assert "workers[1].name: 'a' is also the name of workers[0]" in message


@pytest.mark.parametrize(
    ("text", "owners"),
    [
        (
            "workers: [{name: a, model_path: ./a, port: 1}, {name: b, model_path: ./b, port: 1}]",
            "workers[1].port: 1 is also the port of workers[0]",
        ),
        (
            "controller: {port: 5}\nworkers: [{name: a, model_path: ./a, port: 5}]",
            "workers[0].port: 5 is also the port of controller",
        ),
        (
            "web: {port: 5}\nworkers: [{name: a, model_path: ./a, port: 5}]",
            "web.port: 5 is also the port of workers[0]",
        ),
    ],
)
def test_one_port_for_two_processes_is_refused(text, owners):
    assert owners in complaint(text)


ADAPTERS = "workers: [{name: a, model_path: ./a, port: 1, loras: {zh: ./zh, de: owner/de}}%s]"


def test_adapters_lie_where_checkpoints_do():
    loras = parse(ADAPTERS % "").workers[0].loras
    assert loras == {"zh": "/fleets/zh", "de": "owner/de"}
    assert complaint(ADAPTERS.replace("./zh", "zh") % "") == (
        "f.yaml:1: workers[0].loras: a folder is written ./zh, a hub name owner/name"
    )
    assert "not 'z h'" in complaint(ADAPTERS.replace("zh:", "z h:") % "")


@pytest.mark.parametrize(
    ("another", "problem"),
    [
        (
            ", {name: zh, model_path: ./b, port: 2}",
            "workers[0].loras.zh: is also a model of workers[1]",
        ),
        (
            ", {name: b, model_path: ./b, port: 2, loras: {de: ./de}}",
            "workers[1].loras.de: is also a model of workers[0]",
        ),
        (
            ", {name: b, model_path: ./b, port: 2, loras: {b: ./c}}",
            "workers[1].loras.b: is also a model of workers[1]",
        ),
    ],
)
def test_two_models_of_one_name_are_refused_adapters_among_them(another, problem):
    assert problem in complaint(ADAPTERS % another)


BASE = "{name: a, model_path: ./zh, model_base: ./big, port: 1, loras: {de: ./de}%s}"


@pytest.mark.parametrize(
    ("workers", "other"),
    [
        ([BASE % "", "{name: big, model_path: ./c, port: 2}"], 1),
        (["{name: b, model_path: ./b, port: 2, loras: {big: ./c}}", BASE % ""], 0),
        (
            [
                BASE % "",
                "{name: b, model_path: ./b, model_base: ./c/big, port: 2, loras: {c: ./c}}",
            ],
            0,
        ),
        ([BASE % "", "{name: big, model_path: ./big, quantisation: 4bit, port: 2}"], 1),
        (["{name: big, model_path: ./a, model_base: ./big, port: 2, loras: {c: ./c}}"], 0),
        (["{name: a, model_path: ./a, model_base: ./big, port: 2, loras: {big: ./c}}"], 0),
    ],
)
def test_a_base_beside_adapters_has_a_name_of_its_own(workers, other):
    said = complaint(f"workers: [{', '.join(workers)}]")
    assert ".model_base: is served too, as 'big' by its folder's name" in said
    assert f"which is also a model of workers[{other}]; rename that one" in said


def test_a_base_that_several_workers_hold_alike_is_one_model():
    another = "{name: b, model_path: ./b, model_base: ./big, port: 2, loras: {fr: ./fr}}"
    alone = "{name: big, model_path: ./big, port: 3}"
    assert len(parse(f"workers: [{BASE % ''}, {another}, {alone}]").workers) == 3
    # Without `loras` the base is not served, and its name is free.
    lora = "{name: a, model_path: ./zh, model_base: ./big, port: 1}"
    assert parse(f"workers: [{lora}, {{name: big, model_path: ./c, port: 3}}]")


def test_adapters_over_a_base_that_would_be_gone_are_refused():
    text = "workers: [{name: a, model_path: ./a, port: 1, loras: {b: ./b}, loading: {%s}}]"
    assert "leaves no base that they could share" in complaint(text % "merge_lora: true")
    assert parse(text % "merge_lora: false")


@pytest.mark.parametrize("name", ["controller", "web"])
def test_a_worker_cannot_take_the_name_of_another_process(name):
    text = f"workers: [{{name: {name}, model_path: ./a, port: 1}}]"
    assert "is the name of the" in complaint(text)


def test_a_key_that_stands_twice_is_refused():
    assert "the key 'port' stands here twice" in complaint(
        "workers:\n  - name: a\n    port: 1\n    port: 2\n    model_path: ./a\n"
    )


def test_a_file_without_workers_is_refused():
    assert "workers: is missing" in complaint("controller: {}")
    assert "workers: expected one worker at least" in complaint("workers: []")


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "just words"])
def test_what_is_no_mapping_is_refused(text):
    assert "expected a mapping with the key `workers`" in complaint(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("workers: [\n  {name: a", "f.yaml:2: expected ',' or '}'"),
        ("controller:\n\tport: 1\n", "f.yaml:2: there is a tab; YAML takes spaces alone"),
        ("workers:\n  - name: a\n    port:1\n", "f.yaml:3: expected a key, a colon and a space"),
        ("workers:\n  - name: a\n web: {}\n", "f.yaml:3: this line is indented unlike those"),
        ("env: {A: 2026-13-45}", "f.yaml: cannot be read as YAML: month must be in 1..12"),
    ],
)
def test_broken_yaml_is_refused_with_its_place(text, said):
    assert complaint(text).startswith(said)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ("args: --verbose", "args: expected a list, not '--verbose'"),
        ("gpus: 0", "gpus: expected a list, not 0"),
        ("env: [A=b]", "env: expected keys and values, not ['A=b']"),
        ("threads: two", "threads: expected a whole number, not 'two'"),
        ("threads: 0", "threads: expected 1 or more, not 0"),
        ("device: gpu", "device: expected auto, cpu, cuda, cuda:N or mps, not 'gpu'"),
        ("quantisation: 5bit", "quantisation: expected 'none', '8bit' or '4bit', not '5bit'"),
        ("limits: ", "limits: expected keys and values, and it is empty; leave the key out"),
        ("loading: {mmap: 3}", "loading.mmap: expected true or false, not 3"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_in_words_of_the_file(keys, said):
    text = f"workers: [{{name: a, model_path: ./a, port: 1, {keys}}}]"
    assert complaint(text).startswith(f"f.yaml:1: workers[0].{said}")


def test_a_name_that_yaml_reads_as_something_else_is_to_be_quoted():
    said = complaint("workers: [{name: 7, model_path: ./a, port: 1}]")
    assert said == "f.yaml:1: workers[0].name: expected text, not 7; put it in quotes"


def test_what_two_processes_share_is_refused_with_the_line_of_the_second():
    text = "workers:\n  - {name: a, model_path: ./a, port: 1}\n  - name: a\n    model_path: ./a\n"
    assert complaint(text + "    port: 1\n").splitlines() == [
        "f.yaml:3: workers[1].name: 'a' is also the name of workers[0]",
        "f.yaml:5: workers[1].port: 1 is also the port of workers[0]",
    ]


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FleetFileError, match=r"nowhere\.yaml: cannot be read: No such file"):
        load_fleet_file(tmp_path / "nowhere.yaml")


def test_a_file_that_is_no_text_is_named(tmp_path):
    (tmp_path / "f.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FleetFileError, match="it is not UTF-8 text"):
        load_fleet_file(tmp_path / "f.yaml")


def test_numbers_become_text_in_the_environment_and_truth_values_are_refused():
    assert parse(ONE_WORKER + "\nenv: {A: 1, B: 1.5}").env == {"A": "1", "B": "1.5"}
    assert "f.yaml:2: env.A: put it in quotes" in complaint(ONE_WORKER + "\nenv: {A: true}")


@pytest.mark.parametrize("gpus", ["[-1]", "[0, 0]"])
def test_gpus_are_indices_each_once(gpus):
    text = f"workers: [{{name: a, model_path: ./a, port: 1, gpus: {gpus}}}]"
    assert "expected indices of GPUs, each once" in complaint(text)


def test_no_gpus_and_a_device_that_is_one_are_refused():
    text = "workers: [{name: a, model_path: ./a, port: 1, gpus: [], device: %s}]"
    assert "gpus: [] leaves no GPU for device: cuda:0" in complaint(text % "'cuda:0'")
    assert parse(text % "auto").workers[0].gpus == ()


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:9"),
        ("0.0.0.0", "http://127.0.0.1:9"),
        ("::", "http://[::1]:9"),
        ("node7", "http://node7:9"),
    ],
)
def test_a_process_is_dialled_where_it_can_be_reached(host, url):
    text = f"{ONE_WORKER}\ncontroller: {{host: '{host}', port: 9}}"
    assert parse(text).controller.url == url


def test_every_key_of_the_schema_is_explained():
    schema = FleetSpec.model_json_schema()
    sections = [schema, *schema["$defs"].values()]
    for section in sections:
        for key, field in section.get("properties", {}).items():
            assert field.get("description"), f"{section['title']}.{key} has no description"
    assert json.loads(json.dumps(schema)) == schema


def test_nothing_in_a_fleet_can_be_changed_after_it_was_read():
    spec = parse(ONE_WORKER)
    for section in (spec, spec.workers[0], spec.restart, spec.controller):
        assert isinstance(section, BaseModel)
        assert section.model_config["frozen"]
