"""One workload on PyTorch, driven by compare.lua: the twin of serve.lua, with the same commands and answers."""
import argparse
import sys
import time

import torch

import workloads

parser = argparse.ArgumentParser()
parser.add_argument("--workload", default="add")
parser.add_argument("--variant", default="")
parser.add_argument("--threads", type=int, default=1)
opt = parser.parse_args()
torch.set_num_threads(opt.threads)


def give_up(message):
    print("skip", str(message).splitlines()[0], flush=True)
    sys.exit(0)


try:
    w = workloads.make(opt.workload, opt.variant)
except Exception as error:  # an older PyTorch has no fused optimizers on the CPU
    give_up(error)
step = w["step"]


def peak_mib():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) // 1024 for line in status if line.startswith("VmHWM:"))


def step_mib():
    """The greatest memory of tensors in use during a step, less what was in use before it, by PyTorch's own profiler."""
    try:
        activities = [torch.profiler.ProfilerActivity.CPU]
        with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
            step()
        now = most = 0
        for event in profile.profiler.kineto_results.events():
            if event.name() == "[memory]":
                now += event.nbytes()
                most = max(most, now)
        return most / 2**20
    except Exception:
        return float("nan")


def losses(n):
    values = []
    for _ in range(n):
        loss = step()
        values.append(f"{(w['value']() if 'value' in w else loss).item():.6f}")
    del loss
    return " ".join(values)


def rate(seconds):
    f = w.get("bare", step)
    t0 = time.perf_counter()
    while time.perf_counter() - t0 <= seconds / 10:
        f()
    n, chunk, t0 = 0, 1, time.perf_counter()
    while True:
        for _ in range(chunk):
            f()
        n += chunk
        t1 = time.perf_counter()
        if t1 - t0 < seconds / 20:
            chunk *= 2
        if t1 - t0 >= seconds:
            return n / (t1 - t0)


for line in sys.stdin:
    command, _, value = line.strip().partition(" ")
    if command == "losses":
        print(losses(int(value)), "nan", flush=True)
    elif command == "round":
        print(f"{rate(float(value)) * w['per']:.6g} {w['unit']}", flush=True)
    elif command == "quit":
        peak = peak_mib()  # before the profiler, which takes memory of its own
        print(peak, f"{step_mib():.3f}", flush=True)
        break
