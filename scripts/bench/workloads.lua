--- The workloads of the benchmark on Tide; workloads.py has their twins. Each gives {step, per, unit}: a function that does the
--- work once and returns a loss (a tensor), how many units of work that is, and the unit.
local tide = require "tide"
local nets = require "nets"
local nn, optim = tide.nn, tide.optim

local M = {}

--- A training step. The loss takes the last axis of the result as classes.
local function trainer(net, x, y, criterion, optimizer)
  return function()
    optimizer:zero_grad()
    local loss = criterion(net(x), y)
    loss:backward()
    optimizer:step()
    return loss
  end
end

local function adds(a, b)
  local add = tide.add
  return {step = function()
    for _ = 1, 999 do local _ = add(a, b) end
    return add(a, b)
  end, per = 1000, unit = "ops/s"}
end

function M.add() return adds(tide.tensor {1.0}, tide.tensor {2.0}) end

function M.add_recorded() return adds(tide.tensor({1.0}, {requires_grad = true}), tide.tensor {2.0}) end

function M.xor()
  local net = nets.init(nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1)))
  local x, y = tide.tensor {{0, 0}, {0, 1}, {1, 0}, {1, 1}}, tide.tensor {{0}, {1}, {1}, {0}}
  return {step = trainer(net, x, y, nn.BCEWithLogitsLoss(), optim.SGD(net:parameters(), {lr = 0.5})), per = 1, unit = "steps/s"}
end

local function classifier(net, shape, make_optimizer)
  nets.init(net)
  local x, y = nets.fill(shape, 1), nets.ids({shape[1]}, 10)
  return {step = trainer(net, x, y, nn.CrossEntropyLoss(), make_optimizer(net:parameters())), per = shape[1], unit = "images/s"}
end

function M.mlp() return classifier(nets.mlp(), {64, 784}, function(p) return optim.SGD(p, {lr = 0.1}) end) end

function M.mlp_adam() return classifier(nets.mlp(), {64, 784}, function(p) return optim.Adam(p, {lr = 1e-3}) end) end

function M.lenet() return classifier(nets.lenet(), {64, 1, 28, 28}, function(p) return optim.SGD(p, {lr = 0.1}) end) end

function M.resnet20()
  return classifier(nets.resnet20(), {32, 3, 32, 32}, function(p) return optim.SGD(p, {lr = 0.003, momentum = 0.9}) end)
end

--- The next symbol at every place: x and y (batch, length) of symbols 1 .. 65.
local function predictor(net, shape, optimizer, unit)
  local x, y = nets.ids(shape, 65), nets.ids(shape, 65):reshape {-1}
  local loss = nn.CrossEntropyLoss()
  local function criterion(logits, target) return loss(logits:reshape {-1, 65}, target) end
  return {step = trainer(net, x, y, criterion, optimizer), per = shape[1] * shape[2], unit = unit}
end

function M.char_lstm()
  local net = nets.init(nets.char_lstm())
  return predictor(net, {32, 64}, optim.Adam(net:parameters(), {lr = 2e-3}), "chars/s")
end

function M.gpt()
  local net = nets.init(nets.gpt())
  return predictor(net, {16, 128}, optim.AdamW(net:parameters(), {lr = 3e-4, weight_decay = 0.1}), "tokens/s")
end

--- One optimizer step over 50 parameters of 64 numbers.
local function fifty(make_optimizer)
  local p = {}
  for i = 1, 50 do
    p[i] = nets.fill({64}, 1):requires_grad_()
    p[i].grad = nets.fill({64}, 1)
  end
  local optimizer = make_optimizer(p)
  return {step = function() optimizer:step() end, value = function() return p[50]:sum() end, per = 1, unit = "steps/s"}
end

function M.sgd_50() return fifty(function(p) return optim.SGD(p, {lr = 1e-3}) end) end

function M.adam_50() return fifty(function(p) return optim.Adam(p, {lr = 1e-3}) end) end

-- ---- single ops, whose rates can be held against the libraries' alone ----

local function matmul(m, k, n)
  local a, b = nets.fill({m, k}, 1), nets.fill({k, n}, 1)
  local f = tide.matmul
  return {step = function() return f(a, b):square():mean() end,
          bare = function() return f(a, b) end, per = 2e-9 * m * k * n, unit = "GFLOP/s"}
end

function M.matmul_512() return matmul(512, 512, 512) end

function M.matmul_mlp() return matmul(64, 784, 256) end

local function conv(n, c, k, size)
  local x, w = nets.fill({n, c, size, size}, 1), nets.fill({k, c, 3, 3}, 1)
  local f, opts = tide.conv2d, {padding = 1}
  return {step = function() return f(x, w, nil, opts):square():mean() end,
          bare = function() return f(x, w, nil, opts) end,
          per = 2e-9 * n * c * k * 9 * size * size, unit = "GFLOP/s"}
end

function M.conv_16() return conv(32, 16, 16, 32) end

function M.conv_32() return conv(32, 32, 32, 16) end

function M.conv_64() return conv(32, 64, 64, 8) end

return M
