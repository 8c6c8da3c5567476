"""The workloads of scripts/bench/run.sh on PyTorch.    usage: bench.py --workload add [--threads 2] [--seconds 2]"""
import argparse
import math
import time

import torch
from torch import nn

parser = argparse.ArgumentParser()
parser.add_argument("--workload", default="add")
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--seconds", type=float, default=2.0)
parser.add_argument("--losses", type=int, default=0)
opt = parser.parse_args()
torch.set_num_threads(opt.threads)
state = 12345


def fill(shape, scale):
    """The same numbers as in bench.lua."""
    global state
    values = []
    for _ in range(math.prod(shape)):
        state = (state * 1103515245 + 12345) % 2147483648
        values.append((state / 2147483648 * 2 - 1) * scale)
    return torch.tensor(values).reshape(shape)


def init(net):
    with torch.no_grad():
        for p in net.parameters():
            fan = math.prod(p.shape[1:])
            p.copy_(fill(tuple(p.shape), 1 / math.sqrt(fan) if p.dim() > 1 else 0.01))
    return net


def trainer(net, x, y, criterion, optimizer):
    def step():
        optimizer.zero_grad()
        loss = criterion(net(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return step


def labels(n, classes):
    return torch.tensor([(i * 7) % classes for i in range(1, n + 1)])


def adds(a, b):
    def step():
        for _ in range(1000):
            torch.add(a, b)

    return step, 1000, "ops/s"


def make(name):
    if name == "add":
        return adds(torch.tensor([1.0]), torch.tensor([2.0]))
    if name == "add_recorded":
        return adds(torch.tensor([1.0], requires_grad=True), torch.tensor([2.0]))
    if name == "xor":
        net = init(nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1)))
        x = torch.tensor([[0.0, 0], [0, 1], [1, 0], [1, 1]])
        y = torch.tensor([[0.0], [1], [1], [0]])
        return trainer(net, x, y, nn.BCEWithLogitsLoss(), torch.optim.SGD(net.parameters(), lr=0.5)), 1, "steps/s"
    if name in ("mlp", "mlp_adam"):
        net = init(nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10)))
        x, y = fill((64, 784), 1), labels(64, 10)
        if name == "mlp":
            optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        else:
            optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
        return trainer(net, x, y, nn.CrossEntropyLoss(), optimizer), 64, "images/s"
    if name == "lenet":
        net = init(nn.Sequential(
            nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
            nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)))
        x, y = fill((64, 1, 28, 28), 1), labels(64, 10)
        return trainer(net, x, y, nn.CrossEntropyLoss(), torch.optim.SGD(net.parameters(), lr=0.1)), 64, "images/s"
    raise SystemExit(f"bench: unknown workload {name}")


def rate(step):
    for _ in range(5):
        step()
    n, chunk, t0 = 0, 1, time.perf_counter()
    while True:
        for _ in range(chunk):
            step()
        n += chunk
        t1 = time.perf_counter()
        if t1 - t0 < opt.seconds / 20:
            chunk *= 2
        if t1 - t0 >= opt.seconds:
            return n / (t1 - t0)


step, per_step, unit = make(opt.workload)
if opt.losses:
    print(" ".join(f"{step().item():.6f}" for _ in range(opt.losses)))
else:
    print(f"{rate(step) * per_step:.6g} {unit}")
