"""The workloads of the benchmark on PyTorch: the twins of workloads.lua.

variant: "" is how scripts are mostly written; "channels_last" lays images out that way, "fused" takes the fused optimizer.
"""
import torch
from torch import nn

import nets


def trainer(net, x, y, criterion, optimizer):
    def step():
        optimizer.zero_grad()
        loss = criterion(net(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return step


def adds(a, b):
    def step():
        for _ in range(999):
            torch.add(a, b)
        return torch.add(a, b)

    return dict(step=step, per=1000, unit="ops/s")


def classifier(net, shape, variant, make_optimizer):
    nets.init(net)
    x, y = nets.fill(shape, 1), nets.ids(shape[:1], 10)
    if variant == "channels_last":
        net, x = net.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    step = trainer(net, x, y, nn.CrossEntropyLoss(), make_optimizer(net.parameters()))
    return dict(step=step, per=shape[0], unit="images/s")


def predictor(net, shape, optimizer, unit):
    x, y = nets.ids(shape, 65), nets.ids(shape, 65).reshape(-1)
    loss = nn.CrossEntropyLoss()
    step = trainer(net, x, y, lambda logits, target: loss(logits.reshape(-1, 65), target), optimizer)
    return dict(step=step, per=shape[0] * shape[1], unit=unit)


def fifty(make_optimizer):
    p = []
    for _ in range(50):
        p.append(nets.fill((64,), 1).requires_grad_())
        p[-1].grad = nets.fill((64,), 1)
    optimizer = make_optimizer(p)

    def step():
        optimizer.step()

    return dict(step=step, value=lambda: p[49].sum(), per=1, unit="steps/s")


def matmul(m, k, n):
    a, b = nets.fill((m, k), 1), nets.fill((k, n), 1)
    return dict(step=lambda: torch.matmul(a, b).square().mean(), bare=lambda: torch.matmul(a, b), per=2e-9 * m * k * n, unit="GFLOP/s")


def conv(n, c, k, size, variant):
    x, w = nets.fill((n, c, size, size), 1), nets.fill((k, c, 3, 3), 1)
    if variant == "channels_last":
        x, w = x.to(memory_format=torch.channels_last), w.to(memory_format=torch.channels_last)
    f = torch.nn.functional.conv2d
    return dict(step=lambda: f(x, w, padding=1).square().mean(), bare=lambda: f(x, w, padding=1),
                per=2e-9 * n * c * k * 9 * size * size, unit="GFLOP/s")


def make(name, variant):
    fused = dict(fused=True) if variant == "fused" else {}
    if name == "add":
        return adds(torch.tensor([1.0]), torch.tensor([2.0]))
    if name == "add_recorded":
        return adds(torch.tensor([1.0], requires_grad=True), torch.tensor([2.0]))
    if name == "xor":
        net = nets.init(nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1)))
        x = torch.tensor([[0.0, 0], [0, 1], [1, 0], [1, 1]])
        y = torch.tensor([[0.0], [1], [1], [0]])
        sgd = torch.optim.SGD(net.parameters(), lr=0.5, **fused)
        return dict(step=trainer(net, x, y, nn.BCEWithLogitsLoss(), sgd), per=1, unit="steps/s")
    if name == "mlp":
        return classifier(nets.mlp(), (64, 784), variant, lambda p: torch.optim.SGD(p, lr=0.1, **fused))
    if name == "mlp_adam":
        return classifier(nets.mlp(), (64, 784), variant, lambda p: torch.optim.Adam(p, lr=1e-3, **fused))
    if name == "lenet":
        return classifier(nets.lenet(), (64, 1, 28, 28), variant, lambda p: torch.optim.SGD(p, lr=0.1))
    if name == "resnet20":
        return classifier(nets.resnet20(), (32, 3, 32, 32), variant,
                          lambda p: torch.optim.SGD(p, lr=0.003, momentum=0.9))
    if name == "char_lstm":
        net = nets.init(nets.char_lstm())
        return predictor(net, (32, 64), torch.optim.Adam(net.parameters(), lr=2e-3, **fused), "chars/s")
    if name == "gpt":
        net = nets.init(nets.gpt())
        adamw = torch.optim.AdamW(net.parameters(), lr=3e-4, weight_decay=0.1, **fused)
        return predictor(net, (16, 128), adamw, "tokens/s")
    if name == "sgd_50":
        return fifty(lambda p: torch.optim.SGD(p, lr=1e-3, **fused))
    if name == "adam_50":
        return fifty(lambda p: torch.optim.Adam(p, lr=1e-3, **fused))
    if name == "matmul_512":
        return matmul(512, 512, 512)
    if name == "matmul_mlp":
        return matmul(64, 784, 256)
    if name == "conv_16":
        return conv(32, 16, 16, 32, variant)
    if name == "conv_32":
        return conv(32, 32, 32, 16, variant)
    if name == "conv_64":
        return conv(32, 64, 64, 8, variant)
    raise SystemExit(f"bench: unknown workload {name}")
