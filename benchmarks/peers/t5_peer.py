#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The same work by transformers and PyTorch, for bench_train_step and bench_generate.

    t5_peer.py train_step [--rows 4] [--inputs 512] [--targets 128] [--threads 2] [--steps 5] [--dropout 0.05]
    t5_peer.py generate   [--rows 8] [--inputs 128] [--tokens 64] [--threads 2] [--runs 5]

    [--processor-time]: with --threads 1, seconds of processor time, which a busy machine hardly disturbs

T5 v1.1 small with random weights, fp32, Adafactor of transformers. Prints one JSON object with the same keys. Packages:
requirements.txt beside this file.
"""
import argparse
import json
import os
import resource
import statistics
import sys
import time

import torch
from transformers import T5Config, T5ForConditionalGeneration
from transformers.optimization import Adafactor


now = time.perf_counter


def summary(values):
    values = sorted(values)
    n = len(values)
    return {"median": statistics.median(values), "low": values[n // 4], "high": values[n * 3 // 4], "runs": n}


def ceiling():
    """GFLOP/s of a product of 1024 x 1024 matrices: the median of nine."""
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    torch.mm(a, b)
    seconds = []
    for _ in range(9):
        since = now()
        torch.mm(a, b)
        seconds.append(now() - since)
    return 2 * 1024**3 / statistics.median(seconds) * 1e-9


def model(dropout):
    torch.manual_seed(1)
    return T5ForConditionalGeneration(
        T5Config(vocab_size=32128, d_model=512, d_kv=64, d_ff=1024, num_layers=8, num_decoder_layers=8, num_heads=6,
                 feed_forward_proj="gated-gelu", tie_word_embeddings=False, dropout_rate=dropout,
                 decoder_start_token_id=0))


def timed_steps(net, loss_of, tokens, args):
    """Steps of a network whose loss_of() makes the loss, with transformers' Adafactor."""
    optimizer = Adafactor(net.parameters(), lr=1e-3, relative_step=False, scale_parameter=True, warmup_init=False)

    def step():
        optimizer.zero_grad()
        loss = loss_of()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1e9)
        optimizer.step()
        return loss.item()

    step()
    seconds, ceilings = [], []
    for _ in range(args.steps):
        ceilings.append(ceiling())
        since = now()
        loss = step()
        seconds.append(now() - since)
    result = {"seconds_per_step": summary(seconds), "gemm_ceiling_gflops": summary(ceilings), "loss": loss}
    result["tokens_per_second"] = tokens / result["seconds_per_step"]["median"]
    return result


def train_step(args):
    net = model(args.dropout).train()
    inputs = torch.randint(2, 32128, (args.rows, args.inputs))
    labels = torch.randint(2, 32128, (args.rows, args.targets))
    return timed_steps(net, lambda: net(input_ids=inputs, labels=labels).loss, args.rows * (args.inputs + args.targets), args)


def generate(args):
    net = model(0.0).eval()
    inputs = torch.randint(2, 32128, (args.rows, args.inputs))

    def run(tokens):
        since = now()
        with torch.inference_mode():
            net.generate(input_ids=inputs, do_sample=False, num_beams=1, use_cache=True, min_new_tokens=tokens,
                         max_new_tokens=tokens)
        return now() - since

    run(4)
    rates, steps = [], []
    for _ in range(args.runs):
        first, seconds = run(1), run(args.tokens)
        rates.append(args.rows * args.tokens / seconds)
        steps.append((seconds - first) / (args.tokens - 1) * 1e3)
    return {"tokens_per_second": summary(rates), "milliseconds_per_step": summary(steps)}


def settle(parser):
    """The arguments; from then on `now` is the clock that they ask for and PyTorch has as many threads as they say."""
    args = parser.parse_args()
    if args.processor_time:
        if args.threads != 1:
            parser.error("--processor-time measures one thread: add --threads 1")
        global now
        now = time.process_time
    torch.set_num_threads(args.threads)
    return args


def report(args, result):
    whole = {"command": " ".join([os.path.basename(sys.argv[0])] + sys.argv[1:]),
             "device": f"PyTorch {torch.__version__}, {args.threads} threads", **result,
             "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
    print(json.dumps(whole, indent=2))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=["train_step", "generate"])
    parser.add_argument("--rows", type=int)
    parser.add_argument("--inputs", type=int)
    for name, value in [("targets", 128), ("tokens", 64), ("threads", 2), ("steps", 5), ("runs", 5)]:
        parser.add_argument("--" + name, type=int, default=value)
    parser.add_argument("--dropout", type=float, default=0.05)
    parser.add_argument("--processor-time", action="store_true")
    args = settle(parser)
    training = args.what == "train_step"
    args.rows = args.rows or (4 if training else 8)
    args.inputs = args.inputs or (512 if training else 128)
    report(args, train_step(args) if training else generate(args))


if __name__ == "__main__":
    main()
