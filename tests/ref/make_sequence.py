"""Writes tests/ref/sequence.lua: recurrent networks, attention and shortcuts with a norm as PyTorch computes them, in f64.
usage: python3 tests/ref/make_sequence.py      (PyTorch 2; run once, the file is kept)"""
import os

import torch
import torch.nn.functional as F

HERE = os.path.dirname(os.path.abspath(__file__))
torch.manual_seed(3)
torch.set_default_dtype(torch.float64)


def lua(v):
    if isinstance(v, torch.Tensor):
        dtype = {torch.float64: "f64", torch.bool: "bool"}[v.dtype]
        flat = ",".join(lua(x) for x in v.detach().contiguous().reshape(-1).tolist())
        return "T{shape={%s},dtype=%r,data={%s}}" % (",".join(map(str, v.shape)), dtype, flat)
    if isinstance(v, bool):
        return "true" if v else "false"
    if isinstance(v, float):
        return "-math.huge" if v == -float("inf") else "%.11g" % v
    if isinstance(v, (list, tuple)):
        return "{" + ",".join(lua(x) for x in v) + "}"
    if isinstance(v, dict):
        return "{" + ",".join(f'["{k}"]={lua(x)}' for k, x in v.items()) + "}"
    if isinstance(v, str):
        return '"%s"' % v
    return str(v)


cases = []


def record(kind, name, label, options, state, inputs, outputs, leaves):
    """Outputs, and the gradients of leaves when each output is weighed with numbers of its own."""
    seeds = [torch.randn(o.shape) for o in outputs]
    grads = torch.autograd.grad(outputs, leaves, seeds)
    cases.append({"kind": kind, "name": name, "label": label, "options": options, "state": state, "inputs": inputs,
                  "outputs": list(outputs), "seeds": seeds, "grads": list(grads)})


def recurrent(name, label, steps=4, rows=3, given=False, single=False, **options):
    m = getattr(torch.nn, name)(**options)
    size, first = options["input_size"], options.get("batch_first", False)
    x = torch.randn((steps, size) if single else (rows, steps, size) if first else (steps, rows, size)).requires_grad_()
    pieces = options.get("num_layers", 1) * (2 if options.get("bidirectional") else 1)
    shape = (pieces, options["hidden_size"]) if single else (pieces, rows, options["hidden_size"])
    states = [torch.randn(shape).requires_grad_() for _ in range(2 if name == "LSTM" else 1)] if given else []
    y, last = m(x, (tuple(states) if name == "LSTM" else states[0]) if given else None)
    outputs = [y, *last] if name == "LSTM" else [y, last]
    record("module", name, label, options, dict(m.state_dict()), [x, *states], outputs, [x, *states, *m.parameters()])


for kind in ("LSTM", "GRU", "RNN"):
    recurrent(kind, "plain", input_size=3, hidden_size=2)
    recurrent(kind, "with states, batch first", given=True, batch_first=True, input_size=2, hidden_size=3)
    recurrent(kind, "two layers, both directions", rows=2, steps=3, given=True, num_layers=2, bidirectional=True,
              input_size=2, hidden_size=2)
    recurrent(kind, "without biases, one step", steps=1, bias=False, input_size=3, hidden_size=3)
    recurrent(kind, "one sequence", single=True, given=True, input_size=2, hidden_size=2)
recurrent("RNN", "relu", nonlinearity="relu", input_size=3, hidden_size=3)


def attention(label, q, k, v, mask=None, **options):
    q, k, v = (t.requires_grad_() for t in (q, k, v))
    torch_options = dict(options)
    if q.shape[:-2] != k.shape[:-2]:
        torch_options["enable_gqa"] = True
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, **torch_options)
    inputs = [q, k, v] + ([mask] if mask is not None else [])
    record("op", "scaled_dot_product_attention", label, options, {}, inputs, [y], [q, k, v])


R = torch.randn
attention("plain", R(2, 2, 3, 4), R(2, 2, 5, 4), R(2, 2, 5, 3))
attention("causal", R(2, 5, 4), R(2, 5, 4), R(2, 5, 4), is_causal=True)
attention("causal, more keys than rows", R(1, 2, 3, 2), R(1, 2, 5, 2), R(1, 2, 5, 2), is_causal=True)
attention("causal, fewer keys than rows", R(1, 2, 5, 2), R(1, 2, 3, 2), R(1, 2, 3, 2), is_causal=True)
attention("scale", R(2, 3, 4), R(2, 3, 4), R(2, 3, 4), scale=0.7)
may = torch.rand(4, 5) < 0.6
may[:, 0] = True
attention("mask", R(2, 2, 4, 3), R(2, 2, 5, 3), R(2, 2, 5, 3), may)
attention("mask for each sequence", R(2, 2, 4, 3), R(2, 2, 5, 3), R(2, 2, 5, 3), torch.rand(2, 1, 1, 5) < 2.0)
none = may.clone()
none[2] = False
attention("a row that sees nothing", R(1, 1, 4, 3), R(1, 1, 5, 3), R(1, 1, 5, 3), none)
attention("numbers to add", R(2, 2, 4, 3), R(2, 2, 5, 3), R(2, 2, 5, 3), R(2, 4, 5))
attention("shared heads", R(2, 4, 3, 2), R(2, 2, 3, 2), R(2, 2, 3, 2))


def multihead(label, mask=None, padding=None, other=False, **options):
    m = torch.nn.MultiheadAttention(**options)
    with torch.no_grad():
        for p in m.parameters():
            p.copy_(torch.randn(p.shape) * 0.5)
    shape = (2, 3, options["embed_dim"]) if options.get("batch_first") else (3, 2, options["embed_dim"])
    x = R(shape).requires_grad_()
    key, value = (R(shape).requires_grad_(), R(shape).requires_grad_()) if other else (x, x)
    y, _ = m(x, key, value, attn_mask=mask, key_padding_mask=padding, need_weights=False)
    cases.append({"kind": "module", "name": "MultiheadAttention", "label": label, "options": options,
                  "state": dict(m.state_dict()), "inputs": [x, key, value] if other else [x], "outputs": [y],
                  "masks": {k: t for k, t in (("attn", mask), ("padding", padding)) if t is not None},
                  "seeds": [R(y.shape)]})
    seed = cases[-1]["seeds"]
    leaves = ([x, key, value] if other else [x]) + list(m.parameters())
    cases[-1]["grads"] = list(torch.autograd.grad([y], leaves, seed))


hide = torch.triu(torch.ones(3, 3, dtype=torch.bool), 1)
multihead("itself", embed_dim=4, num_heads=2)
multihead("another key and value, batch first", other=True, embed_dim=4, num_heads=2, batch_first=True)
multihead("masked", mask=hide, padding=torch.tensor([[False, False, True], [False, False, False]]), embed_dim=4,
          num_heads=2, batch_first=True, bias=False)
multihead("masked by numbers", mask=R(4, 3, 3), embed_dim=4, num_heads=2)



def encoder(label, mask=None, **options):
    m = torch.nn.TransformerEncoderLayer(4, 2, dim_feedforward=3, dropout=0.0, **options)
    with torch.no_grad():
        for p in m.parameters():
            p.copy_(torch.randn(p.shape) * 0.5)
    x = R(2, 3, 4).requires_grad_()
    y = m(x, src_mask=mask)
    seed = [R(y.shape)]
    cases.append({"kind": "module", "name": "TransformerEncoderLayer", "label": label,
                  "options": {"d_model": 4, "nhead": 2, "dim_feedforward": 3, "dropout": 0.0, **options},
                  "state": dict(m.state_dict()), "inputs": [x], "masks": {} if mask is None else {"encoder": mask},
                  "outputs": [y], "seeds": seed, "grads": list(torch.autograd.grad([y], [x, *m.parameters()], seed))})


encoder("norm behind")
encoder("norm in front, gelu, masked", mask=hide, batch_first=True, norm_first=True, activation="gelu")


def attention_dropped(label, q, k, v, p, causal=False):
    """softmax, then what is kept of the weights divided by 1 - p, as dropout does."""
    q, k, v = (t.requires_grad_() for t in (q, k, v))
    z = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
    if causal:
        z = z.masked_fill(torch.ones(z.shape[-2:], dtype=torch.bool).triu(1), -float("inf"))
    kept = torch.rand(z.shape) >= p
    y = (z.softmax(-1) * kept / (1 - p)) @ v
    record("op", "scaled_dot_product_attention", label, {"dropout": p, "is_causal": causal}, {}, [q, k, v], [y], [q, k, v])
    cases[-1]["kept"] = kept


attention_dropped("dropout", R(2, 2, 5, 4), R(2, 2, 6, 4), R(2, 2, 6, 3), 0.25)
attention_dropped("dropout, causal", R(2, 2, 7, 4), R(2, 2, 7, 4), R(2, 2, 7, 4), 0.5, True)


def cell(name, label, given=False, single=False, **options):
    m = getattr(torch.nn, name)(**options)
    shape = (lambda n: (n,)) if single else (lambda n: (3, n))
    x = R(shape(options["input_size"])).requires_grad_()
    states = [R(shape(options["hidden_size"])).requires_grad_() for _ in range(2 if name == "LSTMCell" else 1)] if given else []
    out = m(x, (tuple(states) if name == "LSTMCell" else states[0]) if given else None)
    out = list(out) if name == "LSTMCell" else [out]
    record("module", name, label, options, dict(m.state_dict()), [x, *states], out, [x, *states, *m.parameters()])


for kind in ("LSTMCell", "GRUCell", "RNNCell"):
    cell(kind, "plain", input_size=3, hidden_size=2)
    cell(kind, "with states", given=True, input_size=2, hidden_size=3)
    cell(kind, "without biases, one row", given=True, single=True, bias=False, input_size=2, hidden_size=2)
cell("RNNCell", "relu", given=True, nonlinearity="relu", input_size=3, hidden_size=3)


def add_norm(label, shape, dims, affine=True, eps=1e-5):
    x, r = R(shape).requires_grad_(), R(shape).requires_grad_()
    tail = shape[len(shape) - dims:]
    weights = [R(tail).requires_grad_(), R(tail).requires_grad_()] if affine else []
    y = F.layer_norm(x + r, tail, *weights, eps=eps)
    record("op", "add_layer_norm", label, {"dims": dims, "eps": eps}, {}, [x, r, *weights], [y, x + r], [x, r, *weights])
    cases[-1]["leaves"] = len(weights) + 2


add_norm("one axis", (2, 3, 4), 1)
add_norm("two axes, no weights", (2, 3, 4), 2, affine=False, eps=0.1)
add_norm("a long axis", (5, 37), 1)

with open(os.path.join(HERE, "sequence.lua"), "w", encoding="utf-8") as f:
    f.write(f"-- Recurrent networks and attention, computed by PyTorch {torch.__version__.split('+')[0]} with make_sequence.py. "
            "Data, not code: T marks a tensor.\nlocal T = ...\nreturn {\n")
    for c in cases:
        f.write("  " + lua(c) + ",\n")
    f.write("}\n")
