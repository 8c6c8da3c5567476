"""Writes tests/ref/ops.lua, modules.lua and optim.lua: results, gradients and trajectories as PyTorch computes them, in f64.
usage: python3 tests/ref/make_ref.py      (PyTorch 2; run once, the files are kept)"""
import os

import torch
import torch.nn.functional as F

HERE = os.path.dirname(os.path.abspath(__file__))
torch.manual_seed(1)
torch.set_default_dtype(torch.float64)


def lua(v):
    """A value as Lua text; a tensor as {shape = …, data = …}, integers 1-based only where the caller made them so."""
    if isinstance(v, torch.Tensor):
        flat = v.detach().contiguous().reshape(-1).tolist()
        dtype = {torch.float64: "f64", torch.int64: "i64", torch.bool: "bool"}[v.dtype]
        return "T{shape={%s},dtype=%r,data={%s}}" % (
            ",".join(map(str, v.shape)), dtype, ",".join(lua(x) for x in flat))
    if isinstance(v, bool):
        return "true" if v else "false"
    if isinstance(v, float):
        return "0/0" if v != v else "math.huge" if v == float("inf") else "-math.huge" if v == -float("inf") else "%.12g" % v
    if isinstance(v, (list, tuple)):
        return "{" + ",".join(lua(x) for x in v) + "}"
    if isinstance(v, dict):
        return "{" + ",".join(f"{k}={lua(x)}" for k, x in v.items()) + "}"
    if isinstance(v, str):
        return '"%s"' % v
    return str(v)


def write(name, what, cases):
    with open(os.path.join(HERE, name), "w", encoding="utf-8") as f:
        f.write(f"-- {what}, computed by PyTorch {torch.__version__.split('+')[0]} with make_ref.py. Data, not code: T marks a tensor.\n")
        f.write("local T = ...\nreturn {\n")
        for c in cases:
            f.write("  " + lua(c) + ",\n")
        f.write("}\n")


R = torch.randn
U = torch.rand
I = lambda *v: torch.tensor(v)

ops = []


def op(name, inputs, options, f, grad=True, label=None):
    """One case: op name in Tide, its inputs, its named options (1-based), and the same in PyTorch on 0-based inputs."""
    leaves = [x.clone().requires_grad_() if x.dtype.is_floating_point else x for x in inputs]
    out = f(*leaves)
    outs = list(out) if isinstance(out, (tuple, list)) else [out]
    case = {"op": name, "label": label or str(options), "inputs": [x.detach() for x in inputs], "options": options,
            "outputs": [o.detach() for o in outs]}
    floats = [o for o in outs if o.dtype.is_floating_point and o.requires_grad]
    if grad and floats:
        seeds = [R(o.shape) for o in floats]
        wanted = [x for x in leaves if x.dtype.is_floating_point]
        grads = torch.autograd.grad(floats, wanted, seeds, allow_unused=True)
        case["seeds"] = seeds
        case["grads"] = [torch.zeros_like(x) if g is None else g for g, x in zip(grads, wanted)]
    ops.append(case)


def one(*idx):
    """Index tensors as Lua users see them."""
    return torch.tensor(idx) + 1


x23, y23, x3 = R(2, 3), R(2, 3), R(3)
for name, f in {"add": torch.add, "sub": torch.sub, "mul": torch.mul, "div": torch.div, "maximum": torch.maximum,
                "minimum": torch.minimum}.items():
    op(name, [x23, y23], {}, f)
    op(name, [x23, x3], {}, f, label="broadcast")
    op(name, [R(2, 1, 3), R(4, 1)], {}, f, label="broadcast both")
op("pow", [U(2, 3) + 0.5, y23], {}, torch.pow)
op("floor_divide", [x23 * 5, y23], {}, torch.floor_divide, grad=False)
op("remainder", [x23 * 5, y23], {}, torch.remainder)
for name in "neg exp expm1 sin cos tanh erf sigmoid abs sign floor ceil round square".split():
    op(name, [x23 * 2], {}, getattr(torch, name))
for name in "log log1p sqrt rsqrt reciprocal".split():
    op(name, [U(2, 3) + 0.3], {}, getattr(torch, name))
op("clamp", [x23], {"min": -0.5, "max": 0.7}, lambda x: x.clamp(-0.5, 0.7))
op("relu", [x23], {}, F.relu)
op("leaky_relu", [x23], {"slope": 0.2}, lambda x: F.leaky_relu(x, 0.2))
op("elu", [x23], {"alpha": 1.5}, lambda x: F.elu(x, 1.5))
op("gelu", [x23], {}, F.gelu)
op("gelu", [x23], {"approximate": "tanh"}, lambda x: F.gelu(x, approximate="tanh"))
op("silu", [x23], {}, F.silu)
op("softplus", [x23], {}, F.softplus)
for name in "eq ne lt le gt ge".split():
    op(name, [I(1., 2., 3.), I(3., 2., 1.)], {}, getattr(torch, name))
op("where", [I(True, False, True), x3, R(3)], {}, torch.where)
op("isnan", [I(1., float("nan"), float("inf"))], {}, torch.isnan)
op("isfinite", [I(1., float("nan"), float("inf"))], {}, torch.isfinite)

x = R(2, 3, 4)
for name in ("sum", "mean", "amax", "amin", "logsumexp"):
    f = getattr(torch, name)
    op(name, [x], {"axes": [2]}, lambda x, f=f: f(x, 1))
    op(name, [x], {"axes": [1, 3], "keepdim": True}, lambda x, f=f: f(x, (0, 2), keepdim=True))
    op(name, [x], {}, lambda x, f=f: f(x, (0, 1, 2)), label="all")
op("prod", [x], {"axes": [2]}, lambda x: x.prod(1))
op("var", [x], {"axes": [3]}, lambda x: x.var(2))
op("var", [x], {"axes": [1, 2], "correction": 0}, lambda x: x.var((0, 1), correction=0))
op("std", [x], {}, lambda x: x.std(), label="all")
op("norm", [x], {}, lambda x: x.norm(), label="all")
op("norm", [x], {"p": 1, "axes": [2]}, lambda x: x.norm(1, 1))
op("norm", [x], {"p": 3, "axes": [2]}, lambda x: x.norm(3, 1))
op("argmax", [x], {"axis": 2}, lambda x: x.argmax(1) + 1)
op("argmin", [x], {}, lambda x: x.argmin() + 1)
op("median", [x], {"axis": 3}, lambda x: (lambda r: (r.values, r.indices + 1))(x.median(2)))
op("max", [x], {"axis": 1}, lambda x: (lambda r: (r.values, r.indices + 1))(x.max(0)))
op("min", [x], {"axis": 2, "keepdim": True}, lambda x: (lambda r: (r.values, r.indices + 1))(x.min(1, keepdim=True)))
op("cumsum", [x], {"axis": 2}, lambda x: x.cumsum(1))
op("matmul", [R(2, 3), R(3, 4)], {}, torch.matmul)
op("matmul", [R(2, 1, 2, 3), R(5, 3, 4)], {}, torch.matmul, label="batched")
op("matmul", [R(3), R(2, 3, 4)], {}, torch.matmul, label="row")
op("matmul", [R(2, 3), R(3)], {}, torch.matmul, label="column")
op("matmul", [R(3), R(3)], {}, torch.matmul, label="dot")
op("outer", [R(2), R(3)], {}, torch.outer)
op("linear", [R(2, 5, 3), R(4, 3), R(4)], {}, F.linear)
op("flip", [x], {"axes": [1, 3]}, lambda x: x.flip(0, 2))
op("roll", [x], {"shift": 1, "axis": 2}, lambda x: x.roll(1, 1))
op("pad", [x], {"pads": [1, 2, 0, 1], "value": 0.5}, lambda x: F.pad(x, (1, 2, 0, 1), value=0.5))
op("tile", [x23], {"repeats": [2, 1, 2]}, lambda x: x.repeat(2, 1, 2))
op("tril", [R(3, 4)], {"diagonal": 1}, lambda x: x.tril(1))
op("triu", [R(3, 4)], {"diagonal": -1}, lambda x: x.triu(-1))
op("diagonal", [R(3, 4)], {"offset": 1}, lambda x: x.diagonal(1))
op("unfold", [R(2, 7)], {"axis": 2, "size": 3, "step": 2}, lambda x: x.unfold(1, 3, 2))
op("index_select", [x, one(2, 0, 2)], {"axis": 2}, lambda x, i: x.index_select(1, i - 1))
op("gather", [x23, one(2, 0, 1, 1).reshape(2, 2)], {"axis": 2}, lambda x, i: x.gather(1, i - 1))
op("scatter_add", [x23, one(2, 0, 2, 1).reshape(2, 2), R(2, 2)], {"axis": 2}, lambda x, i, s: x.scatter_add(1, i - 1, s))
op("index_add", [x23, one(1, 1), R(2, 2)], {"axis": 2}, lambda x, i, s: x.index_add(1, i - 1, s))
op("masked_select", [x3, I(True, False, True)], {}, torch.masked_select)
op("nonzero", [I(0., 1., 0., 2.)], {}, lambda x: x.nonzero() + 1)
op("sort", [x], {"axis": 2, "descending": True}, lambda x: (lambda r: (r.values, r.indices + 1))(x.sort(1, descending=True)))
op("topk", [x], {"k": 2, "axis": 3}, lambda x: (lambda r: (r.values, r.indices + 1))(x.topk(2, 2)))
op("softmax", [x], {"axis": 2}, lambda x: x.softmax(1))
op("log_softmax", [x], {"axis": 3}, lambda x: x.log_softmax(2))
op("embedding", [R(5, 3), one(4, 0, 4)], {}, lambda w, i: F.embedding(i - 1, w))
for o in ({}, {"stride": [2, 1], "padding": [1, 2]}, {"dilation": [2]}, {"groups": 2}, {"stride": [2], "padding": [1], "groups": 4}):
    kw = {k: v if isinstance(v, int) else (v[0] if len(v) == 1 else tuple(v)) for k, v in o.items()}
    g = o.get("groups", 1)
    op("conv2d", [R(2, 4, 7, 6), R(8, 4 // g, 3, 2), R(8)], o, lambda x, w, b, kw=kw: F.conv2d(x, w, b, **kw))
for o in ({}, {"stride": [2, 3], "padding": [1], "output_padding": [1, 2]}, {"groups": 2, "dilation": [2, 1]}):
    kw = {k: v if isinstance(v, int) else (v[0] if len(v) == 1 else tuple(v)) for k, v in o.items()}
    op("conv_transpose2d", [R(2, 4, 4, 3), R(4, 3, 3, 2), R(3 * o.get("groups", 1))], o,
       lambda x, w, b, kw=kw: F.conv_transpose2d(x, w, b, **kw))
op("max_pool2d", [R(2, 3, 7, 6)], {"kernel": [2]}, lambda x: F.max_pool2d(x, 2))
op("max_pool2d", [R(2, 3, 7, 6)], {"kernel": [3, 2], "stride": [2], "padding": [1], "ceil_mode": True},
   lambda x: F.max_pool2d(x, (3, 2), 2, 1, ceil_mode=True))
op("avg_pool2d", [R(2, 3, 7, 6)], {"kernel": [3], "stride": [2], "padding": [1]}, lambda x: F.avg_pool2d(x, 3, 2, 1))
op("avg_pool2d", [R(2, 3, 7, 6)], {"kernel": [3], "stride": [2], "padding": [1], "ceil_mode": True, "count_include_pad": False},
   lambda x: F.avg_pool2d(x, 3, 2, 1, True, False))
op("adaptive_avg_pool2d", [R(2, 3, 7, 6)], {"output": [3, 4]}, lambda x: F.adaptive_avg_pool2d(x, (3, 4)))
op("layer_norm", [R(2, 3, 4), R(4), R(4)], {"eps": 1e-5}, lambda x, w, b: F.layer_norm(x, (4,), w, b))
op("batch_norm", [R(4, 3, 2, 2), R(3), R(3)], {"eps": 1e-5}, lambda x, w, b: F.batch_norm(x, None, None, w, b, True))
op("bce_with_logits", [R(5), U(5)], {"pos_weight": 2.0},
   lambda x, t: F.binary_cross_entropy_with_logits(x, t, pos_weight=torch.tensor(2.0), reduction="none"))

modules = []


def module(name, options, inputs, f, label=None):
    leaves = [x.clone().requires_grad_() if x.dtype.is_floating_point else x for x in inputs]
    out = f(*leaves)
    seed = R(out.shape)
    grad = torch.autograd.grad(out, leaves[0], seed)[0]
    modules.append({"module": name, "label": label or str(options), "options": options, "inputs": [x.detach() for x in inputs],
                    "output": out, "seed": seed, "grad": grad})


logits, classes = R(6, 4), one(2, 0, 3, 1, 2, 0)
W = [0.5, 1.0, 2.0, 1.5]
for red in ("mean", "sum", "none"):
    module("CrossEntropyLoss", {"reduction": red}, [logits, classes], lambda x, t: F.cross_entropy(x, t - 1, reduction=red))
    module("MSELoss", {"reduction": red}, [x23, y23], lambda x, t: F.mse_loss(x, t.detach(), reduction=red))
    module("L1Loss", {"reduction": red}, [x23, y23], lambda x, t: F.l1_loss(x, t.detach(), reduction=red))
    module("BCEWithLogitsLoss", {"reduction": red}, [x3, U(3)],
           lambda x, t: F.binary_cross_entropy_with_logits(x, t.detach(), reduction=red))
module("CrossEntropyLoss", {"label_smoothing": 0.1, "weight": W}, [logits, classes],
       lambda x, t: F.cross_entropy(x, t - 1, torch.tensor(W), label_smoothing=0.1))
module("CrossEntropyLoss", {"ignore_index": 1}, [logits, classes], lambda x, t: F.cross_entropy(x, t - 1, ignore_index=0))
module("CrossEntropyLoss", {}, [R(2, 4, 3), one(0, 1, 2, 3, 0, 1).reshape(2, 3)], lambda x, t: F.cross_entropy(x, t - 1), label="3-D")
module("NLLLoss", {"weight": W}, [logits.log_softmax(1), classes], lambda x, t: F.nll_loss(x, t - 1, torch.tensor(W)))
module("BCELoss", {}, [U(5) * 0.8 + 0.1, U(5)], lambda x, t: F.binary_cross_entropy(x, t.detach()))
module("GELU", {}, [x23], F.gelu)
module("Softmax", {"dim": 2}, [x23], lambda x: x.softmax(1))

trajectories = []


def trajectory(name, options, make):
    torch.manual_seed(3)
    p = R(4).requires_grad_()
    start, target = p.detach().clone(), R(4)
    optimizer = make([p])
    points = []
    for _ in range(6):
        optimizer.zero_grad()
        ((p - target) ** 2).sum().backward()
        optimizer.step()
        points.append(p.detach().clone())
    trajectories.append({"optim": name, "options": options, "start": start, "target": target, "points": points})


O = torch.optim
for o in ({"lr": 0.1}, {"lr": 0.1, "momentum": 0.9}, {"lr": 0.1, "momentum": 0.9, "nesterov": True},
          {"lr": 0.1, "momentum": 0.9, "dampening": 0.5, "weight_decay": 0.1}):
    trajectory("SGD", o, lambda ps: O.SGD(ps, **o))
for o in ({"lr": 0.1}, {"lr": 0.1, "betas": (0.8, 0.95), "weight_decay": 0.1}, {"lr": 0.1, "amsgrad": True}):
    trajectory("Adam", {k: list(v) if isinstance(v, tuple) else v for k, v in o.items()}, lambda ps: O.Adam(ps, **o))
for o in ({"lr": 0.1}, {"lr": 0.1, "weight_decay": 0.3}):
    trajectory("AdamW", o, lambda ps: O.AdamW(ps, **o))
for o in ({"lr": 0.05}, {"lr": 0.05, "alpha": 0.9, "momentum": 0.9}, {"lr": 0.05, "centered": True, "weight_decay": 0.1}):
    trajectory("RMSprop", o, lambda ps: O.RMSprop(ps, **o))

torch.manual_seed(5)
op("batch_norm", [R(4, 3, 2, 2), R(3), R(3)], {"activation": "relu"}, lambda x, w, b: F.relu(F.batch_norm(x, None, None, w, b, True)))
op("batch_norm", [R(4, 3, 2, 2), R(3), R(3), R(4, 3, 2, 2)], {"activation": "relu"},
   lambda x, w, b, r: F.relu(F.batch_norm(x, None, None, w, b, True) + r), label="relu after a residual")
op("batch_norm", [R(5, 3), R(3), R(3), R(5, 3)], {}, lambda x, w, b, r: F.batch_norm(x, None, None, w, b, True) + r, label="residual")
op("batch_norm_infer", [R(4, 3, 2, 2), R(3), U(3) + 0.5, R(3), R(3), R(4, 3, 2, 2)], {"activation": "relu"},
   lambda x, m, v, w, b, r: F.relu((x - m.view(3, 1, 1)) / (v.view(3, 1, 1) + 1e-5).sqrt() * w.view(3, 1, 1) + b.view(3, 1, 1) + r), label="relu after a residual")

write("ops.lua", "Results and gradients of ops", ops)
write("modules.lua", "Results and gradients of layers and losses", modules)
write("optim.lua", "Trajectories of optimizers on a quadratic", trajectories)
print(len(ops), len(modules), len(trajectories))
