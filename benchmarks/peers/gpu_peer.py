#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The same work by PyTorch on the same GPU, for bench_gpu_kernels and bench_train_step: a JSON line a case.

    gpu_peer.py [--rounds 31] [--only TEXT] [--small] [--device cuda|cpu] [--seconds 200]

Peers: scaled_dot_product_attention with its flash and its cuDNN backend forced, FlexAttention (packed rows, T5 bias),
torch.optim.Adafactor, compiled RMSNorm, LayerNorm, GEGLU, SwiGLU, rotations (with tables of cosines and sines) and linear +
cross-entropy, Liger's fused linear + cross-entropy where it can be imported, and of transformers steps of T5 and Cohere
(PaLM's block) compiled, and T5's generation. A step's line names in "step" that of bench_train_step which it is beside, one
of generation in "generate" that of bench_generate. A case that this machine's packages cannot run says why in "error" and
costs nothing else. Cases stop when --seconds are over.
--small --device cpu shrinks all shapes: it shows that the script runs.
"""
import argparse
import importlib
import json
import math
import statistics
import time

import torch
import torch.nn.functional as F

PACKED_SEGMENT = 384
CACHE_BYTES = 256 << 20
args = None


def shrunk(size, most):
    return min(size, most) if args.small else size


def normal(*shape, grad=False, deviation=1.0, dtype=torch.bfloat16):
    return (torch.randn(*shape, device=args.device, dtype=torch.float32) * deviation).to(dtype).requires_grad_(grad)


def wait():
    if args.device == "cuda":
        torch.cuda.synchronize()


def seconds_of(call, sets=1):
    """Median and quartiles of the seconds of call(i), i counting through the sets of tensors."""
    call(0)
    wait()
    since = time.perf_counter()
    call(0)
    wait()
    once = time.perf_counter() - since
    calls = 1 if args.small or once > 5e-3 else int(5e-3 / once) + 1
    values = []
    for _ in range(args.rounds):
        since = time.perf_counter()
        for i in range(calls):
            call(i % sets)
        wait()
        values.append((time.perf_counter() - since) / calls)
    values.sort()
    n = len(values)
    return {"median": statistics.median(values), "low": values[n // 4], "high": values[n * 3 // 4], "runs": n}


def sets_for(make):
    """As many sets of tensors as no cache holds."""
    first = make()
    size = sum(t.numel() * t.element_size() for t in first if torch.is_tensor(t))
    count = 1 if args.small else max(1, min(16, math.ceil(CACHE_BYTES / max(size, 1))))
    return [first] + [make() for _ in range(count - 1)]


def forward_only(function, make):
    sets = sets_for(make)
    with torch.no_grad():
        return seconds_of(lambda i: function(*sets[i]), len(sets))


def backward_only(function, make):
    """Backward alone: the graph of one forward is walked again and again. function.leaves: what else learns."""
    tensors = make()
    out = function(*tensors)
    d_out = torch.randn_like(out)
    leaves = [t for t in tensors if torch.is_tensor(t) and t.requires_grad] + getattr(function, "leaves", [])
    return seconds_of(lambda i: torch.autograd.grad(out, leaves, d_out, retain_graph=True))


# --- attention ---------------------------------------------------------------------------------------------------------

def attention_shape(b, h, g, s, e):
    return shrunk(b, 1), shrunk(h, 2), shrunk(g, 2), shrunk(s, 160), e


def qkv(shape, grad):
    b, h, g, s, e = shape
    return normal(b, h, s, e, grad=grad), normal(b, g, s, e, grad=grad), normal(b, g, s, e, grad=grad)


def pairs(shape, mask):
    b, h, _, s, _ = shape
    segment = 48 if args.small else PACKED_SEGMENT
    if mask == "full":
        each = s * s
    elif mask == "causal":
        each = s * (s + 1) // 2
    else:
        each = sum(min(segment, s - i) ** 2 for i in range(0, s, segment))
    return b * h * each


def sdpa(backend, causal, grouped):
    from torch.nn.attention import SDPBackend, sdpa_kernel

    chosen = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION, "any": None}[backend]

    def run(q, k, v):
        more = {"enable_gqa": True} if grouped else {}
        if chosen is None:
            return F.scaled_dot_product_attention(q, k, v, is_causal=causal, **more)
        with sdpa_kernel(chosen):
            return F.scaled_dot_product_attention(q, k, v, is_causal=causal, **more)

    return run


def dense_mask(shape):
    b, h, _, s, _ = shape
    segment = 48 if args.small else PACKED_SEGMENT
    ids = torch.arange(s, device=args.device) // segment
    mask = ids[:, None] == ids[None, :]

    def run(q, k, v):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)

    return run


def dense_bias(shape):
    """A trainable bias [heads, S, S] beside SDPA, as transformers' T5 makes it: its gradient is taken too."""
    _, h, _, s, _ = shape
    bias = normal(1, h, s, s, grad=True)

    def run(q, k, v):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)

    run.leaves = [bias]
    return run


def flex(shape, kind):
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    b, h, _, s, _ = shape
    compiled = torch.compile(flex_attention, dynamic=False)
    if kind == "packed":
        segment = 48 if args.small else PACKED_SEGMENT
        ids = torch.arange(-(-s // 128) * 128, device=args.device) // segment  # looked up in blocks of 128
        block = create_block_mask(lambda b_, h_, i, j: ids[i] == ids[j], None, None, s, s, device=args.device)
        return lambda q, k, v: compiled(q, k, v, block_mask=block)
    table = normal(32, h, dtype=torch.float32)
    far = torch.arange(-s, s + 1, device=args.device)
    side = torch.where(far > 0, 16, 0)
    distance = far.abs()
    large = 8 + (torch.log(distance.clamp(min=1) / 8) / math.log(128 / 8) * 8).long()
    bucket = side + torch.where(distance < 8, distance, large.clamp(max=15))
    # A bias that needs no gradient: FlexAttention's fast backward cannot train one.
    return lambda q, k, v: compiled(q, k, v, score_mod=lambda score, b_, h_, i, j: score + table[bucket[j - i + s], h_])


def attention_cases():
    shapes = [("attention d64 full 2k", (8, 32, 32, 2048, 64), "full"),
              ("attention d128 full 2k", (8, 16, 16, 2048, 128), "full"),
              ("attention d128 full 8k", (2, 16, 16, 8192, 128), "full"),
              ("attention d128 causal 8k", (2, 16, 16, 8192, 128), "causal"),
              ("attention d256 full 2k", (8, 8, 8, 2048, 256), "full"),
              ("attention d256 multi-query 2k", (8, 8, 1, 2048, 256), "causal"),
              ("attention d64 packed 384 of 4k", (8, 16, 16, 4096, 64), "packed"),
              ("attention d64 T5 bias 2k", (8, 32, 32, 2048, 64), "bias")]
    for name, shape, mask in shapes:
        def peers(shape=shape, mask=mask):
            shape = attention_shape(*shape)
            grouped = shape[1] != shape[2]
            if mask == "packed":
                return shape, {"sdpa dense mask": lambda: dense_mask(shape), "flex": lambda: flex(shape, "packed")}
            if mask == "bias":
                return shape, {"sdpa dense bias": lambda: dense_bias(shape), "flex, bias fixed": lambda: flex(shape, "bias")}
            return shape, {"sdpa " + b: (lambda b=b: sdpa(b, mask == "causal", grouped)) for b in ("flash", "cudnn", "any")}
        counted = "full" if mask == "bias" else mask

        def forward(shape=None, peers=peers, counted=counted):
            shape, found = peers()
            flops = 4 * pairs(shape, counted) * shape[4]
            for peer, make in found.items():
                yield peer, lambda make=make: forward_only(make(), lambda: qkv(shape, False)), ("tflops", flops * 1e-12)

        def backward(shape=None, peers=peers, counted=counted):
            shape, found = peers()
            flops = 10 * pairs(shape, counted) * shape[4]
            for peer, make in found.items():
                yield peer, lambda make=make: backward_only(make(), lambda: qkv(shape, True)), ("tflops", flops * 1e-12)
        yield name + ", forward", forward
        yield name + ", backward", backward


# --- the rest -------------------------------------------------------------------------------------------------------------

def row_cases():
    def rows(n, d, count, grad=False):
        return lambda: [normal(shrunk(n, 64), shrunk(d, 256), grad=grad) for _ in range(count)]

    def rms(x, scale):
        return F.rms_norm(x, (x.shape[-1],), scale, 1e-6)

    def layer(x, scale):
        return F.layer_norm(x, (x.shape[-1],), scale, None, 1e-6)

    def geglu(gate, linear):
        return F.gelu(gate, approximate="tanh") * linear

    def swiglu(gate, linear):
        return F.silu(gate) * linear

    def rope_tensors(n, heads):
        def make():
            tokens = shrunk(n, 64)
            x = normal(tokens, shrunk(heads, 1), 256)
            frequency = 1e4 ** (-torch.arange(128, device=args.device, dtype=torch.float64) / 128)
            angle = torch.randint(0, 1000000, (tokens, 1), device=args.device) * frequency
            return [x, angle.cos().float()[:, None], angle.sin().float()[:, None]]
        return make

    def rope_halves(x, cos, sin):
        a, b = x.float().chunk(2, -1)
        return torch.cat([a * cos - b * sin, a * sin + b * cos], -1).to(x.dtype)

    def rope_interleaved(x, cos, sin):
        a, b = x.float().unflatten(-1, (-1, 2)).unbind(-1)
        return torch.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(-2).to(x.dtype)

    def case(n, d, function, make, moved, backward=False):
        def run():
            size = shrunk(n, 64) * shrunk(d, 256) * 2
            compiled = torch.compile(function, dynamic=False)
            yield "torch.compile", (lambda: (backward_only if backward else forward_only)(compiled, make)), \
                ("gb_per_second", moved * size * 1e-9)
        return run

    def with_scale(n, d, grad):
        return lambda: [normal(shrunk(n, 64), shrunk(d, 256), grad=grad), normal(shrunk(d, 256), grad=grad)]

    yield "copy", lambda: iter([("torch copy_", lambda: forward_only(lambda a, b: a.copy_(b), rows(65536, 4096, 2)),
                                 ("gb_per_second", 2 * shrunk(65536, 64) * shrunk(4096, 256) * 2e-9))])
    yield "product 8192^3", lambda: iter([("torch.mm", lambda: forward_only(
        lambda a, b: a @ b.t(), lambda: [normal(shrunk(8192, 64), shrunk(8192, 64)) for _ in range(2)]),
        ("tflops", 2 * shrunk(8192, 64) ** 3 * 1e-12))])
    yield "rmsnorm forward", case(32768, 4096, rms, with_scale(32768, 4096, False), 2)
    yield "rmsnorm backward", case(32768, 4096, rms, with_scale(32768, 4096, True), 4, backward=True)
    yield "layernorm forward", case(32768, 4096, layer, with_scale(32768, 4096, False), 2)
    yield "layernorm backward", case(32768, 4096, layer, with_scale(32768, 4096, True), 4, backward=True)
    yield "geglu forward", case(16384, 10240, geglu, rows(16384, 10240, 2), 3)
    yield "geglu backward", case(16384, 10240, geglu, rows(16384, 10240, 2, grad=True), 5, backward=True)
    yield "swiglu forward", case(16384, 10240, swiglu, rows(16384, 10240, 2), 3)
    yield "swiglu backward", case(16384, 10240, swiglu, rows(16384, 10240, 2, grad=True), 5, backward=True)
    yield "rope interleaved, 16 heads", case(32768, 4096, rope_interleaved, rope_tensors(32768, 16), 2)
    yield "rope halves, 16 heads", case(32768, 4096, rope_halves, rope_tensors(32768, 16), 2)
    yield "rope halves, 1 head", case(262144, 256, rope_halves, rope_tensors(262144, 1), 2)


def loss_case():
    n, d, v = shrunk(8192, 64), shrunk(4096, 256), shrunk(256000, 700)
    flops = 6 * n * d * v * 1e-12

    def tensors():
        return (normal(n, d, grad=True), normal(v, d, grad=True, deviation=d ** -0.5),
                torch.randint(0, v, (n,), device=args.device))

    def plain(x, w, y):
        logits = (x @ w.t()).float()
        return F.cross_entropy(logits, y) + 1e-4 * torch.logsumexp(logits, -1).square().mean()

    def both(function):
        x, w, y = tensors()

        def call(_):
            x.grad = w.grad = None
            function(x, w, y).backward()
        return lambda: seconds_of(call)

    yield "torch.compile", both(torch.compile(plain, dynamic=False)), ("tflops", flops)
    yield "liger", lambda: both(liger())(), ("tflops", flops)


def liger():
    ops = importlib.import_module("liger_kernel.transformers")
    fused = ops.LigerFusedLinearCrossEntropyLoss(lse_square_scale=1e-4)
    return lambda x, w, y: fused(w, x, y)


def adafactor_case():
    count, r, c = shrunk(60, 3), shrunk(4096, 130), shrunk(4096, 140)

    def run(**more):
        params = [torch.nn.Parameter(normal(r, c, dtype=torch.float32)) for _ in range(count)]
        for p in params:
            p.grad = normal(r, c, deviation=0.01, dtype=torch.float32)
        optimizer = torch.optim.Adafactor(params, lr=1e-3, **more)
        step = optimizer.step
        if more.pop("compiled", False):
            step = torch.compile(step)
        return seconds_of(lambda _: step())

    bytes_ = 24 * count * r * c * 1e-9
    yield "torch.optim.Adafactor, fp32, foreach", lambda: run(foreach=True), ("gb_per_second", bytes_)
    yield "torch.optim.Adafactor, fp32", lambda: run(foreach=False), ("gb_per_second", bytes_)


def step_seconds(net, ids, labels):
    """Of forward, backward and the update of a network in bf16, compiled."""
    net = net.to(args.device, torch.bfloat16).train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, fused=args.device == "cuda")
    compiled = net if args.small else torch.compile(net, dynamic=False)

    def step(_):
        optimizer.zero_grad(set_to_none=True)
        compiled(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()
    return seconds_of(step)


def t5_model(size):
    """transformers' T5 v1.1 in the shapes of bench_shape (bench.c)."""
    from transformers import T5Config, T5ForConditionalGeneration

    d, h, ff, layers = {"base": (768, 12, 2048, 12), "large": (1024, 16, 2816, 24), "xl": (2048, 32, 5120, 24)}[size]
    if args.small:
        d, h, ff, layers = 64, 2, 96, 2
    config = T5Config(vocab_size=32128, d_model=d, d_kv=64 if not args.small else 32, d_ff=ff, num_layers=layers,
                      num_decoder_layers=layers, num_heads=h, feed_forward_proj="gated-gelu",
                      tie_word_embeddings=False, dropout_rate=0.0, decoder_start_token_id=0)
    return T5ForConditionalGeneration(config)


def t5_case(size, rows, inputs, targets):
    """A step, compiled, with fused AdamW: forward, backward, update."""
    def run():
        n = shrunk(rows, 2)
        x = torch.randint(2, 32128, (n, shrunk(inputs, 64)), device=args.device)
        y = torch.randint(2, 32128, (n, shrunk(targets, 32)), device=args.device)
        return step_seconds(t5_model(size), x, y)

    yield "transformers, torch.compile, AdamW", run, ("rows_per_second", shrunk(rows, 2)), {"step": size}


def generate_case(size, rows, inputs, tokens):
    """Greedy decoding in bf16; with a cache that grows, and with one of fixed size whose step is compiled."""
    n, steps = shrunk(rows, 2), shrunk(tokens, 4)

    def run(**more):
        model = t5_model(size).to(args.device, torch.bfloat16).eval()
        x = torch.randint(2, 32128, (n, shrunk(inputs, 16)), device=args.device)
        rounds, args.rounds = args.rounds, min(args.rounds, 3)

        def call(_):
            with torch.no_grad():
                model.generate(x, max_new_tokens=steps, min_new_tokens=steps, do_sample=False, num_beams=1, **more)
        try:
            return seconds_of(call)
        finally:
            args.rounds = rounds

    row = ("tokens_per_second", n * steps), {"generate": size}
    yield "transformers generate", run, *row
    yield "transformers generate, static cache", lambda: run(cache_implementation="static"), *row


def palm_case(size, rows, tokens):
    """The same of transformers' Cohere, whose block is PaLM's, in the shapes of bench_shape (bench.c)."""
    def run():
        from transformers import CohereConfig, CohereForCausalLM

        d, h, ff, layers = {"1b": (2048, 16, 8192, 16), "3b": (3072, 24, 12288, 24)}[size]
        if args.small:
            d, h, ff, layers = 64, 2, 256, 2
        config = CohereConfig(vocab_size=32128, hidden_size=d, intermediate_size=ff, num_hidden_layers=layers,
                              num_attention_heads=h, num_key_value_heads=1, logit_scale=d ** -0.5, use_cache=False,
                              tie_word_embeddings=True, bos_token_id=None, eos_token_id=1)
        ids = torch.randint(2, 32128, (shrunk(rows, 1), shrunk(tokens, 64)), device=args.device)
        return step_seconds(CohereForCausalLM(config), ids, ids)

    yield "transformers, torch.compile, AdamW", run, ("rows_per_second", shrunk(rows, 1)), {"step": "palm-" + size}


def cases():
    yield from row_cases()
    yield from attention_cases()
    yield "linear + cross-entropy + z-loss", loss_case
    yield "adafactor, 1e9 parameters", adafactor_case
    yield "T5 v1.1 base 512+114, step", lambda: t5_case("base", 32, 512, 114)
    yield "T5 v1.1 large 512+114, step", lambda: t5_case("large", 16, 512, 114)
    yield "T5 v1.1 large, generation", lambda: generate_case("large", 32, 512, 64)
    yield "T5 v1.1 xl, generation", lambda: generate_case("xl", 64, 512, 64)
    yield "PaLM 1B, 2048 tokens, step", lambda: palm_case("1b", 8, 2048)
    yield "PaLM 3B, 2048 tokens, step", lambda: palm_case("3b", 4, 2048)


def main():
    global args
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--only", default="")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=200)
    args = parser.parse_args()
    name = torch.cuda.get_device_name() if args.device == "cuda" else "cpu"
    print(json.dumps({"benchmark": "gpu_peer", "device": name, "torch": torch.__version__, "small": args.small}), flush=True)
    until = time.perf_counter() + args.seconds
    # backward_only walks a graph twice, which donated buffers forbid.
    functorch = importlib.import_module("torch._functorch.config")
    if hasattr(functorch, "donated_buffer"):
        functorch.donated_buffer = False
    for case, make in cases():
        if args.only not in case or time.perf_counter() > until:
            continue
        for peer, run, (unit, amount), *more in make():
            line = {"benchmark": "gpu_peer", "case": case, "peer": peer, **(more[0] if more else {})}
            try:
                line["seconds"] = run()
                line[unit] = amount / line["seconds"]["median"]
            except Exception as failure:  # a peer that this machine lacks is a result too
                line["error"] = f"{type(failure).__name__}: {str(failure).splitlines()[0] if str(failure) else ''}"[:200]
            print(json.dumps(line), flush=True)
            if args.device == "cuda":
                torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
