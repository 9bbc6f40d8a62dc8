#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The same work by transformers and PyTorch, for bench_train_step --family palm.

    palm_peer.py [--size d1024] [--rows 1] [--tokens 1024] [--threads 2] [--steps 5] [--processor-time]

CohereForCausalLM, whose block is PaLM's: attention and SwiGLU beside each other under one LayerNorm, multi-query, rotations
of pairs that lie together, embeddings tied. Random weights, fp32, no dropout (the model has none), Adafactor of
transformers. Prints one JSON object with the same keys. Packages: requirements.txt beside this file.
"""
import argparse

import torch
import t5_peer
from transformers import CohereConfig, CohereForCausalLM

# d_model, heads, d_ff, layers: those of bench_shape in bench.c
SIZES = {"tiny": (64, 2, 256, 2), "d1024": (1024, 8, 4096, 8), "1b": (2048, 16, 8192, 16), "3b": (3072, 24, 12288, 24)}


def config(size):
    d, heads, ff, layers = SIZES[size]
    return CohereConfig(vocab_size=512 if size == "tiny" else 32128, hidden_size=d, intermediate_size=ff,
                        num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=1, logit_scale=d ** -0.5,
                        tie_word_embeddings=True, use_cache=False, bos_token_id=None, eos_token_id=1)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", choices=SIZES, default="d1024")
    for name, value in [("rows", 1), ("tokens", 1024), ("threads", 2), ("steps", 5)]:
        parser.add_argument("--" + name, type=int, default=value)
    parser.add_argument("--processor-time", action="store_true")
    args = t5_peer.settle(parser)
    torch.manual_seed(1)
    net = CohereForCausalLM(config(args.size)).train()
    ids = torch.randint(2, net.config.vocab_size, (args.rows, args.tokens))
    t5_peer.report(args, t5_peer.timed_steps(net, lambda: net(input_ids=ids, labels=ids).loss, args.rows * args.tokens, args))


if __name__ == "__main__":
    main()
