"""What is on the wire between two sites and their SuperLink: every byte in both directions, in plain text."""

import gzip
import json
import socket
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from builders import patients, tiny_config, write_site, write_store
from flwr.app import Context, Message, RecordDict
from wire import Recorder, Secrets, decompressed, secrets_of

from client.app import app
from client.audit import AuditLog
from client.audit_chain import entries, verify
from server.released import load_released
from server.results import read_results
from shared_model.batch import PatientData
from shared_model.config import RunConfig
from shared_model.flower import free_port
from shared_model.messages import TRAIN, RoundOrder, TrainReply, weights_content
from shared_model.model import build_model
from shared_model.packing import unpacked

ROOT = Path(__file__).parents[2]
WINDOWS, TEXT = 3, "jane-doe-1961-smoker"
SITES = ("north", "south")


def _data(number: int) -> PatientData:
    """Random patients whose ids are no small numbers, in care units that are called like one of them."""
    data = patients(60, windows=WINDOWS, seed=number)
    return replace(data, patient_N=7_310_000_000_000 + 9973 * torch.arange(60), units=(TEXT, f"{TEXT}-{number}"))


def _site(folder: Path, name: str, data: PatientData, config: RunConfig) -> Path:
    place = folder / f"{name}-{TEXT}"
    write_store(place / "store", data, study=config.study)
    (place / "extract").mkdir()
    (place / "extract" / "notes.csv").write_text(f"subject_id,text\n7310000000000,{TEXT}\n", encoding="utf-8")
    return write_site(place, site=name, source={"path": "extract"})


def _changed(config: RunConfig) -> str:
    default = RunConfig().to_flat()
    return " ".join(f"{key}={json.dumps(value)}" for key, value in config.to_flat().items() if value != default[key])


def _update(site: Path, config: RunConfig, output: Path) -> TrainReply:
    """What a site sent in the first round: the same message gets the same update to the last bit."""
    plan = load_released(output / "model").plan
    order = RoundOrder(round=1, learning_rate=config.learning_rate_at(1), plan=plan)
    weights = build_model(config.model_for(plan), seed=config.seed).state_dict()
    context = Context(1, 1, {"site-config": str(site)}, RecordDict(), config.to_flat())
    return TrainReply.read(unpacked(app(Message(weights_content(weights, order), 1, TRAIN), context).content))


def _wait_for(port: int) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)


def _send(port: int, data: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port)) as sender:
        sender.sendall(data)
        sender.shutdown(socket.SHUT_WR)
        while sender.recv(1 << 16):
            pass


def test_no_patients_data_is_on_the_wire(tmp_path: Path, flower) -> None:
    output, sizes = tmp_path / "run", {"prediction_hours": float(WINDOWS), "fusion_width": 8}
    config = tiny_config(**sizes, output=str(output), name="wired", bootstrap=20, admission_timeout=60.0)
    data = {name: _data(number) for number, name in enumerate(SITES)}
    sites = {name: _site(tmp_path, name, held, config) for name, held in data.items()}
    flower.superlink()
    recorder = Recorder(flower.port)
    _wait_for(flower.port)  # a SuperNode that finds nobody waits longer and longer
    try:
        for name, site in sites.items():
            flower.start(
                name, "flower-supernode", "--insecure", "--superlink", f"127.0.0.1:{recorder.port}",
                "--port", str(free_port()), "--node-config", f'site-config="{site}"',
            )  # fmt: skip
        printed = flower.run(ROOT, _changed(config))
        captured = decompressed(recorder.captured())
        assert (output / "results.json").is_file(), printed
        assert [r.replied for r in read_results(output / "results.json").rounds] == [list(SITES)] * 2
        assert b"content-encoding" not in captured.lower()  # nothing that `decompressed` does not know

        for name, site in sites.items():
            assert secrets_of(data[name], text=TEXT).found_in(captured) == set()
            _whole_record(site.parent / "store.audit.jsonl", captured)
            for tensor_name, tensor in _update(site, config, output).weights.items():
                assert tensor.numpy().tobytes() in captured, f"{name}'s {tensor_name}: was everything captured?"
        _planted_leaks_are_found(recorder, data["north"])
    finally:
        recorder.close()


def _whole_record(path: Path, captured: bytes) -> None:
    """One line for every answer, and nothing of it is a number of a patient either."""
    audit = AuditLog(path)
    assert not verify(path, audit.head_file).problem
    found = list(entries(path))
    assert Counter(e["kind"] for e in found) == {"describe": 1, "statistics": 1, "train": 2, "evaluate": 1}
    assert {(e["outcome"], e["run"], e["epsilon"]) for e in found} == {("released", "wired", None)}
    assert sum(e["bytes"] for e in found) < len(captured)


def _planted_leaks_are_found(recorder: Recorder, data: PatientData) -> None:
    secrets = secrets_of(data, text=TEXT)
    row = int(data.static_NF[:, 0].isfinite().nonzero()[0])
    leaks = {
        "id": b"POST / HTTP/1.1\r\n\r\n" + data.patient_N[:1].numpy().tobytes(),
        "id as text": b"x" + str(data.patient_N[3].item()).encode(),
        "static, float32": data.static_NF.numpy().tobytes(),
        "series, float64": b"?" + data.series_NTC.double().numpy().tobytes(),
        "static as text": repr(data.static_NF[row, 0].item()).encode(),
        "notes, float16": gzip.compress(data.embedding_ME.numpy().tobytes()),
        "text": f"note={TEXT}".encode(),
    }
    for name, leak in leaks.items():
        before = len(recorder.streams)
        _send(recorder.port, leak)
        new = b"\0".join(bytes(stream) for stream in recorder.streams[before:])
        assert name in secrets.found_in(decompressed(new))


@pytest.mark.parametrize("offset", range(9))
def test_the_search_finds_a_secret_wherever_it_lies(offset: int) -> None:
    data = _data(0)
    secrets: Secrets = secrets_of(data, text=TEXT)
    noise = bytes(range(97, 97 + offset))
    assert secrets.found_in(noise + data.patient_N[59:].numpy().tobytes()) == {"id"}
    assert secrets.found_in(noise) == secrets.found_in(b"") == set()
