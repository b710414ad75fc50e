"""One run of ten minutes on a GPU: every kernel against float64 and its limit, the decode step, the vision tower, TTFT.

    python -m benches.bench_gpu [--quick]

Prints Markdown: a line about the machine, then a table for each of the questions that only a GPU can answer. Kernels
are timed inside CUDA graphs, since launching from Python costs more than most of them take.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
import triton
from faster_smolvlm import SmolVLMConfig, SmolVLMForConditionalGeneration
from faster_smolvlm.kernels import attention, launch, layer_norm, pixel_shuffle_project, rms_norm
from faster_smolvlm.kernels.launch import architecture, as_if, supports_pdl
from faster_smolvlm.modeling import ops
from faster_smolvlm.modeling.engines.decode_graph import DecodeGraph

from benches.gpu_model import TEXT, VISION, Text, decode
from benches.grid_barrier import meet
from benches.timing import machine, table

CONTEXT = 1100
BLOCK = 32
DEVICE = "cuda"
DTYPE = torch.bfloat16


def graphed(run: Callable[[], object], repeats: int = 50) -> float:
    """Return seconds of one `run`, captured `repeats` times in a graph; the median of nine replays."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(repeats):
            run()
    return timed(graph.replay) / repeats


def timed(run: Callable[[], object], rounds: int = 9) -> float:
    """Return seconds of one `run` by events on the device; the median."""
    run()
    seconds = []
    for _ in range(rounds):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        run()
        end.record()
        end.synchronize()
        seconds.append(start.elapsed_time(end) / 1e3)
    return statistics.median(seconds)


def copy_bandwidth() -> float:
    """Return the bytes a second that a large copy reads and writes: the limit of this card in practice."""
    source = torch.empty(2**30, dtype=torch.int8, device=DEVICE)
    target = torch.empty_like(source)
    return 2 * source.numel() / timed(lambda: target.copy_(source))


def model_of(name: str, layers: int | None = None) -> SmolVLMForConditionalGeneration:
    """Return a random model of the sizes of `name`, with four vision layers."""
    text, tower = TEXT[name], VISION[name]
    side = round(tower.tokens**0.5)
    config = SmolVLMConfig(
        text_config={
            "model_type": "llama", "hidden_size": text.hidden, "intermediate_size": text.intermediate,
            "num_hidden_layers": layers or text.layers, "num_attention_heads": text.heads,
            "num_key_value_heads": text.kv_heads, "head_dim": 64, "vocab_size": text.vocabulary,
            "max_position_embeddings": 8192, "pad_token_id": 0, "eos_token_id": None, "rms_norm_eps": 1e-5,
        },
        vision_config={
            "hidden_size": tower.width, "intermediate_size": 4 * tower.width, "num_hidden_layers": tower.layers,
            "num_attention_heads": tower.heads, "image_size": 16 * side, "patch_size": 16,
        },
        scale_factor=tower.shuffle,
        image_token_id=text.vocabulary - 1,
    )  # fmt: skip
    with torch.device(DEVICE):
        return SmolVLMForConditionalGeneration(config).eval().to(DEVICE, DTYPE)


def decode_rows(name: str, bandwidth: float) -> list[list[str]]:
    """Time the captured step: with and without overlap of launches, bf16 and int8, beside the eager modules."""
    model, text = model_of(name), TEXT[name]
    rows = []
    for int8 in (False, True):
        for pdl in (False, True) if supports_pdl(model.device) else (False,):
            graph = DecodeGraph(model, int8=int8)
            graph._pdl = pdl
            graph.acquire()
            cache = graph.reserve(1, CONTEXT + 64)
            cache._lengths = [CONTEXT] * text.layers
            graph.begin(torch.zeros(1, dtype=torch.int32, device=DEVICE))
            token = torch.zeros(1, dtype=torch.int64, device=DEVICE)

            def block(graph: DecodeGraph = graph, token: torch.Tensor = token) -> None:
                graph.rewind(CONTEXT)
                graph.greedy(token, BLOCK)

            graph.greedy(token, BLOCK)
            seconds = timed(block) / BLOCK
            read = sum(w.runs * w.bytes for w in decode(text, CONTEXT, 1 if int8 else 2))
            rows.append(
                [
                    name, "int8" if int8 else "bf16", "yes" if pdl else "no", f"{seconds * 1e6:.0f}",
                    f"{1 / seconds:.0f}", f"{read / bandwidth * 1e6:.0f}", f"{read / bandwidth / seconds:.0%}",
                ]
            )  # fmt: skip
            graph.release()
    return rows


def decode_kernel_rows(name: str, bandwidth: float) -> list[list[str]]:
    """Time the launches of one step kernel by kernel; each is repeated over all layers, so that its weights come from
    memory and not from L2.
    """
    model, text = model_of(name), TEXT[name]
    graph = DecodeGraph(model, capture=lambda run: run)
    graph.acquire()
    cache = graph.reserve(1, CONTEXT + 64)
    cache._lengths = [CONTEXT] * text.layers
    graph.begin(torch.zeros(1, dtype=torch.int32, device=DEVICE))
    with launch.record(architecture(model.device)) as recorded:
        graph._launch(cache)
    rows = []
    for work in decode(text, CONTEXT):
        same = [one for one in recorded if one.kernel.__name__ == f"{work.kernel}_kernel"]

        def run(same: list[launch.Launch] = same) -> None:
            for one in same:
                launch.launch(one.kernel, one.grid, one.settings, *one.args, pdl=False, **one.constants)

        seconds, limit = graphed(run, 4) / len(same), work.bytes / bandwidth
        rows.append([name, work.kernel, f"{seconds * 1e6:.2f}", f"{limit * 1e6:.2f}", f"{limit / seconds:.0%}"])
    graph.release()
    return rows


def eager_row(name: str) -> list[str]:
    model, text = model_of(name), TEXT[name]
    ids = torch.randint(1, text.vocabulary - 1, (1, CONTEXT), device=DEVICE)
    with torch.no_grad():
        cache = model(input_ids=ids, use_cache=True, logits_to_keep=1).past_key_values

        def step() -> None:
            cache.crop(CONTEXT)
            model(input_ids=ids[:, :1], past_key_values=cache, logits_to_keep=1)

        with ops.use("torch"):
            seconds = timed(step)
    return [name, "eager modules", "", f"{seconds * 1e6:.0f}", f"{1 / seconds:.0f}", "", ""]


def attention_rows() -> list[list[str]]:
    """Time attention of the towers and the prompt against SDPA, and hold it against float64."""
    cases = [
        ("SigLIP 17 x 1024, d 64", 17, 1024, 12, 12, 64, False),
        ("SO400M 17 x 729, d 72", 17, 729, 16, 16, 72, False),
        ("prompt of 1100, 9:3 heads", 1, 1100, 9, 3, 64, True),
    ]
    rows = []
    for name, batch, length, heads, kv_heads, dim, causal in cases:
        q, k, v = (torch.randn(batch, length, h, dim, device=DEVICE, dtype=DTYPE) for h in (heads, kv_heads, kv_heads))
        qt, kt, vt = (x.transpose(1, 2) for x in (q, k, v))
        ours = graphed(lambda q=q, k=k, v=v, d=dim, c=causal: attention.attention(q, k, v, None, d**-0.5, c))
        theirs = graphed(
            lambda q=qt, k=kt, v=vt, c=causal, g=heads != kv_heads: F.scaled_dot_product_attention(
                q, k, v, is_causal=c, enable_gqa=g
            )
        )
        small = tuple(x[:1].double() for x in (qt, kt, vt))
        exact = F.scaled_dot_product_attention(*small, is_causal=causal, enable_gqa=heads != kv_heads)
        got = attention.attention(q[:1], k[:1], v[:1], None, dim**-0.5, causal).transpose(1, 2).double()
        flops = 4.0 * batch * length**2 * heads * dim * (0.5 if causal else 1.0)
        rows.append(
            [
                name, f"{ours * 1e6:.0f}", f"{flops / ours / 1e12:.0f}", f"{theirs * 1e6:.0f}", f"{theirs / ours:.2f}",
                f"{((got - exact).norm() / exact.norm()).item():.1e}",
            ]
        )  # fmt: skip
    return rows


def tile_rows() -> list[list[str]]:
    """Time the vision attention of 256M with the tiles of each architecture that this card can run."""
    q, k, v = torch.randn(17, 1024, 3, 12, 64, device=DEVICE, dtype=DTYPE).unbind(2)
    rows = []
    for arch in ("sm80", "sm90"):
        with as_if(arch):
            row = launch.settings("attention", q.device)
            seconds = graphed(lambda: attention.attention(q, k, v, None, 0.125, False))
        rows.append([f"{row.tile['BLOCK_M']} x {row.tile['BLOCK_N']}, {row.num_warps} warps", f"{seconds * 1e6:.0f}"])
    return rows


def barrier_row() -> str:
    """Measure what a barrier across the whole card costs, which a step in one launch would pay 5 times a layer."""
    counter = torch.zeros(1, dtype=torch.int32, device=DEVICE)
    programs, rounds = torch.cuda.get_device_properties(0).multi_processor_count, 2000
    seconds = timed(lambda: meet(counter, rounds, programs)) / rounds
    return f"One barrier across {programs} programs: {seconds * 1e6:.2f} µs (below 0.8 a step in one launch would pay)."


def fused_rows() -> list[list[str]]:
    """Time norms and connector against the torch calls that they replace."""
    x = torch.randn(17 * 1024, 768, device=DEVICE, dtype=DTYPE)
    h = torch.randn(1100, 576, device=DEVICE, dtype=DTYPE)
    w, b, g = (torch.randn(n, device=DEVICE, dtype=DTYPE) for n in (768, 768, 576))
    tiles, projection = x.view(17, 1024, 768), torch.randn(576, 768 * 16, device=DEVICE, dtype=DTYPE)
    from faster_smolvlm.modeling import reference

    cases: list[tuple[str, Callable[[], object], Callable[[], object]]] = [
        (
            "layer_norm + residual, 17408 x 768",
            lambda: layer_norm.layer_norm(x, x, w, b, 1e-6),
            lambda: F.layer_norm(x + x, (768,), w, b, 1e-6),
        ),
        (
            "rms_norm + residual, 1100 x 576",
            lambda: rms_norm.rms_norm(h, h, g, 1e-5),
            lambda: reference.add_rms_norm(h, h, g, 1e-5),
        ),
        (
            "pixel_shuffle_project, 17 tiles",
            lambda: pixel_shuffle_project.pixel_shuffle_project(tiles, projection, 4),
            lambda: reference.pixel_shuffle_project(tiles, projection, 4),
        ),
    ]
    rows = []
    for name, ours, theirs in cases:
        a, t = graphed(ours), graphed(theirs)
        rows.append([name, f"{a * 1e6:.1f}", f"{t * 1e6:.1f}", f"{t / a:.2f}"])
    return rows


def gelu_row() -> str:
    """Say whether cuBLASLt's fused GELU is the tanh or the erf one on this device, and what it saves."""
    x, w = torch.randn(4096, 768, device=DEVICE), torch.randn(3072, 768, device=DEVICE) / 28
    b = torch.zeros(3072, device=DEVICE)
    fused = torch._addmm_activation(b, x, w.t(), use_gelu=True)
    plain = torch.addmm(b, x, w.t())
    tanh = (fused - F.gelu(plain, approximate="tanh")).abs().max().item()
    erf = (fused - F.gelu(plain)).abs().max().item()
    x, w, b = (t.to(DTYPE) for t in (x, w, b))
    one = graphed(lambda: torch._addmm_activation(b, x, w.t(), use_gelu=True))
    two = graphed(lambda: F.gelu(F.linear(x, w, b), approximate="tanh"))
    kind = "tanh" if tanh < erf else "erf"
    return (
        f"`_addmm_activation(use_gelu=True)` is the {kind} GELU here (distance {tanh:.1e} to tanh, {erf:.1e} to erf); "
        f"fused {one * 1e6:.0f} µs, apart {two * 1e6:.0f} µs."
    )


def time_to_first_token(name: str) -> list[str]:
    """Time 17 tiles and a prompt up to the first token: kernels against plain torch."""
    model, tower, text = model_of(name), VISION[name], TEXT[name]
    size = model.config.vision_config.image_size
    pixels = torch.randn(1, tower.tiles, 3, size, size, device=DEVICE, dtype=DTYPE)
    places = tower.tiles * tower.tokens // tower.shuffle**2
    ids = torch.randint(1, text.vocabulary - 1, (1, places + 20), device=DEVICE)
    ids[:, 4 : 4 + places] = text.vocabulary - 1

    def first() -> None:
        with torch.no_grad():
            model(input_ids=ids, pixel_values=pixels, logits_to_keep=1).logits.argmax(-1)

    seconds = {}
    for implementation in ("triton", "torch"):
        with ops.use(implementation):
            seconds[implementation] = timed(first, rounds=5)
    ours, theirs = seconds["triton"], seconds["torch"]
    return [name, f"{ours * 1e3:.1f}", f"{theirs * 1e3:.1f}", f"{theirs / ours:.2f}"]


def gap_row(text: Text) -> str:
    """Measure what a launch costs inside a graph: a chain of the smallest norm."""
    x, g = torch.randn(1, text.hidden, device=DEVICE, dtype=DTYPE), torch.ones(text.hidden, device=DEVICE, dtype=DTYPE)
    seconds = graphed(lambda: rms_norm.rms_norm(x, None, g, 1e-5), 200)
    return f"One dependent launch inside a graph (RMSNorm of one row): {seconds * 1e6:.2f} µs."


def warm_clocks(seconds: float = 0.5) -> None:
    """Keep the card busy for a while: one that idles clocks low, and its first figures would be too small."""
    x = torch.randn(4096, 4096, device=DEVICE, dtype=DTYPE)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        x @ x
        torch.cuda.synchronize()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the 256M sizes only")
    names = ["256M"] if parser.parse_args().quick else list(TEXT)
    if not torch.cuda.is_available():
        raise SystemExit("bench_gpu needs a CUDA or ROCm device; `python -m benches.gpu_model` prints predictions.")
    torch.manual_seed(0)
    warm_clocks()
    device, bandwidth = torch.device(DEVICE), copy_bandwidth()
    print(
        f"{torch.cuda.get_device_name()} ({architecture(device)} settings), copies at {bandwidth / 1e12:.2f} TB/s, "
        f"torch {torch.__version__}, triton {triton.__version__}, {machine()}\n"
    )
    decode_head = ["decode", "weights", "overlap", "µs a token", "tokens/s", "limit, µs", "of the limit"]
    kernel_head = ["decode kernel of", "kernel", "µs", "limit, µs", "of the limit"]
    attention_head = ["attention", "Triton, µs", "TFLOP/s", "SDPA, µs", "ratio", "error to float64"]
    first_head = ["time to first token", "Triton, ms", "torch, ms", "ratio"]
    return show(
        {
            **{
                f"decode {n}": lambda n=n: table(decode_head, [*decode_rows(n, bandwidth), eager_row(n)]) for n in names
            },
            **{f"kernels {n}": lambda n=n: table(kernel_head, decode_kernel_rows(n, bandwidth)) for n in names},
            **{f"first token {n}": lambda n=n: table(first_head, [time_to_first_token(n)]) for n in names},
            "fused": lambda: table(["fused", "Triton, µs", "torch, µs", "ratio"], fused_rows()),
            "GELU": gelu_row,
            "gap": lambda: gap_row(TEXT["256M"]),
            "attention": lambda: table(attention_head, attention_rows()),
            "tiles": lambda: table(["vision attention tile", "µs"], tile_rows()),
            "barrier": barrier_row,
        }
    )


def show(tables: Mapping[str, Callable[[], str]]) -> int:
    """Print each table as it comes; one that fails says so and leaves the others. Returns 1 if any failed."""
    failed = []
    for name, make in tables.items():
        try:
            print(make(), "\n", flush=True)
        except Exception as error:
            failed.append(name)
            print(f"{name} FAILED: {type(error).__name__}: {error}\n", flush=True)
    if failed:
        print(f"{len(failed)} of {len(tables)} tables failed: {', '.join(failed)}")
    return int(bool(failed))


if __name__ == "__main__":
    raise SystemExit(main())
