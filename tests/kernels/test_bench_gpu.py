"""The run that answers what only a GPU can must not fail on its first GPU: its decode parts here, tiny, with a made-up
clock.
"""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from faster_smolvlm.modeling.engines.decode_graph import DecodeGraph

from benches import bench_gpu
from tests.helpers.recorded_capture import RecordedCapture


@pytest.fixture
def tiny(monkeypatch):
    def clock(run, *_, **__):
        run()
        return 1e-3

    def graph(model, **arguments):
        return DecodeGraph(model, **{"capture": RecordedCapture(), **arguments})

    text = replace(bench_gpu.TEXT["256M"], hidden=32, intermediate=48, heads=2, kv_heads=1, layers=2, vocabulary=61)
    tower = replace(bench_gpu.VISION["256M"], width=32, heads=2, tokens=16, layers=1, shuffle=2, tiles=1)
    for name, value in {
        "DEVICE": "cpu", "DTYPE": torch.float32, "CONTEXT": 12, "BLOCK": 2, "graphed": clock, "timed": clock,
        "TEXT": {"256M": text}, "VISION": {"256M": tower}, "DecodeGraph": graph,
    }.items():  # fmt: skip
        monkeypatch.setattr(bench_gpu, name, value)


def test_decode_and_first_token(tiny):
    plain, int8 = bench_gpu.decode_rows("256M", 1e12)
    assert [plain[1], int8[1]] == ["bf16", "int8"]
    kernels = {row[1] for row in bench_gpu.decode_kernel_rows("256M", 1e12)}
    assert kernels == {
        "qkv_decode", "decode_attention", "out_decode", "mlp_decode", "down_decode", "lm_head_argmax", "advance",
    }  # fmt: skip
    assert bench_gpu.eager_row("256M")[1] == "eager modules"
    assert len(bench_gpu.time_to_first_token("256M")) == 4
    assert "RMSNorm" in bench_gpu.gap_row(bench_gpu.TEXT["256M"])


def test_a_table_that_fails_leaves_the_others(capsys):
    def broken():
        raise RuntimeError("too many resources requested for launch")

    assert bench_gpu.show({"one": lambda: "first table", "two": broken, "three": lambda: "last table"}) == 1
    printed = capsys.readouterr().out
    assert (
        printed.index("first table") < printed.index("two FAILED: RuntimeError: too many") < printed.index("last table")
    )
    assert "1 of 3 tables failed: two" in printed
    assert bench_gpu.show({"one": lambda: "first table"}) == 0


def test_barrier(tiny, monkeypatch):
    met = []
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(multi_processor_count=132))
    monkeypatch.setattr(bench_gpu, "meet", lambda *arguments: met.append(arguments))
    assert "across 132 programs" in bench_gpu.barrier_row()
    assert met[0][1:] == (2000, 132)


def test_the_barrier_counts_its_rounds():
    from benches.grid_barrier import barrier_kernel

    counter = torch.zeros(1, dtype=torch.int32)
    barrier_kernel[(1,)](counter, 5)  # one program meets itself: the interpreter runs programs one after another
    assert int(counter) == 5
