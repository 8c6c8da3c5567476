--- Train a small network on XOR, the function that a single neuron cannot learn (Minsky & Papert 1969).
--- usage: tide xor.lua [--steps 2000] [--hidden 8] [--lr 0.5] [--seed 1]
local tide = require "tide"
local nn, optim = tide.nn, tide.optim

local opt = tide.options {steps = 2000, hidden = 8, lr = 0.5, seed = 1}
tide.manual_seed(opt.seed)

local x = tide.tensor {{0, 0}, {0, 1}, {1, 0}, {1, 1}}
local y = tide.tensor {{0}, {1}, {1}, {0}}
local net = nn.Sequential(nn.Linear(2, opt.hidden), nn.Tanh(), nn.Linear(opt.hidden, 1))
local criterion = nn.BCEWithLogitsLoss()
local sgd = optim.SGD(net:parameters(), {lr = opt.lr})

local start = tide.time()
for step = 1, opt.steps do
  local loss = criterion(net(x), y)
  sgd:zero_grad()
  loss:backward()
  sgd:step()
  if step % (opt.steps // 5) == 0 then print(("step %d  loss %.5f"):format(step, loss:item())) end
end
print(("%.1f us a step"):format((tide.time() - start) / opt.steps * 1e6))

local p = tide.no_grad(function() return net(x):sigmoid() end)
for i = 1, #x do
  print(("%g xor %g = %g   network: %.3f"):format(x[{i, 1}]:item(), x[{i, 2}]:item(), y[i]:item(), p[i]:item()))
end
assert(p:round():equal(y), "the network has not learned XOR; try another --seed or more --steps")
