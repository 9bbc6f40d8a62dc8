#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes the golden cases beside this file: small T5 models, and one of PaLM's shape as a Cohere, as Hugging Face
transformers computes them in float64 (Cohere's norms and rotary angles in fp32), and training by an Adafactor written
here in float64 after Shazeer and Stern (2018) in t5x's form.

make.py [FOLDER [KIND ...]]. Needs torch, transformers, safetensors (made with 2.x, 4.57, 0.6); running the tests needs none
of them.
"""
import json, os, sys
import numpy as np, torch
from safetensors.torch import save_file
from transformers import CohereConfig, CohereForCausalLM, T5Config, T5ForConditionalGeneration

HERE = sys.argv[1] if len(sys.argv) > 1 else os.path.dirname(os.path.abspath(__file__))
KINDS = {
    "gated": dict(seed=1201, vocab=96, d=32, heads=2, dim=16, ff=48, layers=2, decoder=1, tied=False, act="gated-gelu"),
    "tied": dict(seed=1202, vocab=80, d=24, heads=3, dim=16, ff=40, layers=1, decoder=2, tied=True, act="relu"),
    "palm": dict(seed=1203, vocab=88, d=28, heads=3, kv=1, dim=12, ff=44, layers=2, scale=1.5),
}
STEPS, RATE, Z, MIN_FACTORED = 6, 0.02, 1e-3, 16


def build_palm(k):
    torch.manual_seed(k["seed"])
    model = CohereForCausalLM(CohereConfig(
        vocab_size=k["vocab"], hidden_size=k["d"], intermediate_size=k["ff"], num_hidden_layers=k["layers"],
        num_attention_heads=k["heads"], num_key_value_heads=k["kv"], head_dim=k["dim"], logit_scale=k["scale"],
        layer_norm_eps=1e-6, rope_theta=500.0, tie_word_embeddings=True, attention_dropout=0.0, pad_token_id=0,
        bos_token_id=None, eos_token_id=1, attn_implementation="sdpa"))
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.dim() == 1:
                p.copy_(1 + 0.2 * torch.randn_like(p))
            else:
                p.copy_(torch.randn_like(p) * (0.3 if "embed" in name else p.shape[-1] ** -0.5))
    return model


def build(k):
    if "kv" in k: return build_palm(k)
    torch.manual_seed(k["seed"])
    model = T5ForConditionalGeneration(T5Config(
        vocab_size=k["vocab"], d_model=k["d"], d_kv=k["dim"], d_ff=k["ff"], num_layers=k["layers"],
        num_decoder_layers=k["decoder"], num_heads=k["heads"], dropout_rate=0.0, feed_forward_proj=k["act"],
        tie_word_embeddings=k["tied"], pad_token_id=0, eos_token_id=1, decoder_start_token_id=0))
    with torch.no_grad():
        for name, p in model.named_parameters():
            scale = 1.0 if "bias" in name or name.startswith("shared") else p.shape[-1] ** -0.5
            if p.dim() == 1:
                p.copy_(1 + 0.2 * torch.randn_like(p))
                if k["tied"] and name == "decoder.final_layer_norm.weight": p.mul_(3)
            else:
                p.copy_(torch.randn_like(p) * scale * (0.5 if ".q." in name else 1))
    return model


def one_row(model): return isinstance(model, CohereForCausalLM)


def logits(model, x, y, prefix=False):
    """[len(y), vocab]; prefix: a decoder alone whose inputs attend to one another."""
    if one_row(model):
        n = len(x) + len(y) - 1
        seen = torch.ones(n, n, dtype=torch.bool).tril()
        if prefix: seen[:len(x), :len(x)] = True
        return model(input_ids=torch.tensor([x + y[:-1]]), attention_mask=seen[None, None],
                     position_ids=torch.arange(n)[None]).logits[0, len(x) - 1:]
    return model(input_ids=torch.tensor([x]), decoder_input_ids=torch.tensor([[0] + y[:-1]])).logits[0]


def score(model, x, y, prefix=False):
    lp = torch.log_softmax(logits(model, x, y, prefix), -1)
    each = [lp[i, t].item() for i, t in enumerate(y)]
    return {"logprob": sum(each), "target_logprobs": each}


def greedy(model, x, n):
    y, gap = [], 1e9
    while len(y) < n and (not y or y[-1] != 1):
        top = torch.topk(logits(model, x, y + [0])[-1], 2)
        gap = min(gap, (top.values[0] - top.values[1]).item())
        y.append(top.indices[0].item())
    return y, gap


class Adafactor:
    """Exact, float64, dictionaries of numpy arrays; optimizer.min_factored_dim = MIN_FACTORED."""
    def __init__(self): self.t, self.state = 0, {}

    def step(self, params, grads):
        self.t += 1
        beta2 = 1 - self.t ** -0.8
        for name, p in params.items():
            g = grads[name]
            s = g * g + 1e-30
            if p.ndim == 2 and min(p.shape) >= MIN_FACTORED:
                r, c = self.state.get(name, (0.0, 0.0))
                r, c = beta2 * r + (1 - beta2) * s.mean(1), beta2 * c + (1 - beta2) * s.mean(0)
                self.state[name] = (r, c)
                y = g / np.sqrt(np.outer(r / r.mean(), c))
            else:
                v = beta2 * self.state.get(name, 0.0) + (1 - beta2) * s
                self.state[name] = v
                y = g / np.sqrt(v)
            y = y / max(1.0, np.sqrt((y * y).mean()))
            p -= RATE * max(np.sqrt((p * p).mean()), 1e-3) * y


def dump(path, rows):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as f:
        for r in rows: f.write(json.dumps(r) + "\n")


def pack(examples, rows, inputs, targets, one):
    """Rows in file order, a row ends where the next example does not fit (one: both together in the sum); complete batches
    of so many rows."""
    batches, batch, row = [], [], []
    for x, y in examples:
        n, m = len(x) + sum(len(a) for a, _ in row), len(y) + sum(len(b) for _, b in row)
        if n + m > inputs + targets if one else n > inputs or m > targets:
            batch.append(row)
            row = []
            if len(batch) == rows: batches.append(batch); batch = []
        row = row + [(x, y)]
    return batches


def train(model, batches, prefix=False):
    params = {n: p for n, p in model.named_parameters()}
    optimizer, log = Adafactor(), []
    for step, batch in enumerate(batches, 1):
        model.zero_grad()
        nll, z, count = 0.0, 0.0, 0
        for x, y in [e for row in batch for e in row]:
            l = logits(model, x, y, prefix)
            nll = nll + torch.nn.functional.cross_entropy(l, torch.tensor(y), reduction="sum")
            z = z + Z * torch.logsumexp(l, -1).pow(2).sum()
            count += len(y)
        ((nll + z) / count).backward()
        grads = {n: p.grad.numpy() for n, p in params.items()}
        norm = sum(float((g * g).sum()) for g in grads.values()) ** 0.5
        values = {n: p.detach().numpy() for n, p in params.items()}
        optimizer.step(values, grads)
        log.append({"step": step, "loss": nll.item() / count, "z_loss": z.item() / count, "gradient_norm": norm,
                    "target_tokens": count})
    return log


CONFIG = """run: {{steps: {steps}, seed: 5}}
data:
  mixture:
    - {{name: golden, format: ids, path: train.jsonl}}
  order: sequential
  packing: true
  input_length: 40
  target_length: 24
train: {{global_batch: 4, micro_batch: 3, dropout: 0.0, z_loss: {z}}}
optimizer: {{learning_rate: {rate}, min_factored_dim: {minimum}}}
"""

for kind, k in KINDS.items():
    if sys.argv[2:] and kind not in sys.argv[2:]: continue
    rng = np.random.default_rng(k["seed"])
    ids = lambda n: rng.integers(3, k["vocab"], n - 1).tolist() + [1]
    folder = f"{HERE}/{kind}"
    model = build(k)
    model.save_pretrained(folder + "/model", safe_serialization=True)
    os.remove(folder + "/model/generation_config.json")
    model = model.double().eval()
    pairs = [(ids(rng.integers(1, 30)), ids(rng.integers(1, 12))) for _ in range(8)] + [(ids(150), ids(30)), ([1], [1])]
    with torch.no_grad():
        dump(f"{folder}/pairs.jsonl", [{"input_ids": x, "target_ids": y} for x, y in pairs])
        dump(f"{folder}/score.jsonl", [score(model, x, y) for x, y in pairs])
        if one_row(model): dump(f"{folder}/score-prefix.jsonl", [score(model, x, y, True) for x, y in pairs])
        prompts, outputs = [], []
        for _ in range(200):  # prompts whose choice of ids is no matter of rounding
            x = ids(rng.integers(3, 20))
            if one_row(model): x.pop()  # its answer goes on in the same row
            y, gap = greedy(model, x, 12)
            if one_row(model) and len(set(y)) < 4: continue
            if gap > 1e-3 and len(prompts) < 4: prompts.append({"input_ids": x}); outputs.append({"output_ids": y})
            if len(prompts) == 4: break
        dump(f"{folder}/prompts.jsonl", prompts)
        dump(f"{folder}/generate.jsonl", outputs)
    examples = [(ids(rng.integers(2, 20)), ids(rng.integers(1, 12))) for _ in range(40 * STEPS)]
    batches = pack(examples, 4, 40, 24, one_row(model))[:STEPS]
    dump(f"{folder}/train/train.jsonl", [{"input_ids": x, "target_ids": y} for b in batches for row in b for x, y in row])
    dump(f"{folder}/train/metrics.jsonl", train(model, batches))
    save_file({n: p.detach().float().contiguous() for n, p in model.named_parameters()}, f"{folder}/train/final.safetensors")
    if one_row(model):
        dump(f"{folder}/train/metrics-prefix.jsonl", train(build(k).double().eval(), batches, True))
    with open(f"{folder}/train/config.yaml", "w") as f:
        f.write(CONFIG.format(steps=STEPS, z=Z, rate=RATE, minimum=MIN_FACTORED))
    print(kind, [round(json.loads(l)["loss"], 3) for l in open(f"{folder}/train/metrics.jsonl")])
