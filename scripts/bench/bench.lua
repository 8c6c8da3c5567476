--- The workloads of scripts/bench/run.sh on Tide.    usage: tide bench.lua WORKLOAD [--threads 2] [--seconds 2]
--- Prints "RATE UNIT" of one workload; run.sh runs this and bench.py in turn and prints ratios.
local tide = require "tide"
local nn, optim = tide.nn, tide.optim
local opt = tide.options {workload = "add", threads = 2, seconds = 2.0, losses = 0}
tide.set_num_threads(opt.threads)
tide.manual_seed(1)

--- Calls step() for about the given time after a warm-up; returns calls per second.
local function rate(step, warm)
  for _ = 1, warm or 5 do step() end
  local n, chunk, t0 = 0, 1, tide.time()
  local t1
  repeat
    for _ = 1, chunk do step() end
    n = n + chunk
    t1 = tide.time()
    if t1 - t0 < opt.seconds / 20 then chunk = chunk * 2 end
  until t1 - t0 >= opt.seconds
  return n / (t1 - t0)
end

--- Weights and data that are the same numbers in bench.py: a plain recurrence, so that neither needs the other's generator.
local state = 12345
local function fill(shape, scale)
  local n, values = 1, {}
  for _, d in ipairs(shape) do n = n * d end
  for i = 1, n do
    state = (state * 1103515245 + 12345) % 2147483648
    values[i] = (state / 2147483648 * 2 - 1) * scale
  end
  return tide.tensor(values):reshape(shape)
end

local function init(net)
  tide.no_grad(function()
    for _, p in ipairs(net:parameters()) do
      local shape, fan = p:shape(), 1
      for i = 2, #shape do fan = fan * shape[i] end
      p:copy_(fill({table.unpack(shape)}, #shape > 1 and 1 / math.sqrt(fan) or 0.01))
    end
  end)
  return net
end

local function trainer(net, x, y, criterion, sgd)
  return function()
    sgd:zero_grad()
    local loss = criterion(net(x), y)
    loss:backward()
    sgd:step()
    return loss
  end
end

local function labels(n, classes)
  local values = {}
  for i = 1, n do values[i] = (i * 7) % classes + 1 end
  return tide.tensor(values, {dtype = "i64"})
end

local workloads = {}

function workloads.add()
  local a, b = tide.tensor {1.0}, tide.tensor {2.0}
  local add = tide.add
  return function() for _ = 1, 1000 do local _ = add(a, b) end end, 1000, "ops/s"
end

function workloads.add_recorded()
  local a, b = tide.tensor({1.0}, {requires_grad = true}), tide.tensor {2.0}
  local add = tide.add
  return function() for _ = 1, 1000 do local _ = add(a, b) end end, 1000, "ops/s"
end

function workloads.xor()
  local net = init(nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1)))
  local x, y = tide.tensor {{0, 0}, {0, 1}, {1, 0}, {1, 1}}, tide.tensor {{0}, {1}, {1}, {0}}
  return trainer(net, x, y, nn.BCEWithLogitsLoss(), optim.SGD(net:parameters(), {lr = 0.5})), 1, "steps/s"
end

function workloads.mlp()
  local net = init(nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10)))
  local x, y = fill({64, 784}, 1), labels(64, 10)
  return trainer(net, x, y, nn.CrossEntropyLoss(), optim.SGD(net:parameters(), {lr = 0.1})), 64, "images/s"
end

function workloads.mlp_adam()
  local net = init(nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10)))
  local x, y = fill({64, 784}, 1), labels(64, 10)
  return trainer(net, x, y, nn.CrossEntropyLoss(), optim.Adam(net:parameters(), {lr = 1e-3})), 64, "images/s"
end

function workloads.lenet()
  local net = init(nn.Sequential(
    nn.Conv2d(1, 6, 5, {padding = 2}), nn.ReLU(), nn.MaxPool2d(2),
    nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
    nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)))
  local x, y = fill({64, 1, 28, 28}, 1), labels(64, 10)
  return trainer(net, x, y, nn.CrossEntropyLoss(), optim.SGD(net:parameters(), {lr = 0.1})), 64, "images/s"
end

local make = workloads[opt.workload]
if not make then error("bench: unknown workload " .. tostring(opt.workload)) end
local step, per_step, unit = make()
if opt.losses > 0 then -- the first losses, so that nobody can win by computing less
  local list = {}
  for i = 1, opt.losses do
    local loss = step()
    list[i] = loss and ("%.6f"):format(loss:item()) or "0"
  end
  print(table.concat(list, " "))
else
  print(("%.6g %s"):format(rate(step) * per_step, unit))
end
