--- Samples that worker threads make: a small network learns circles from squares, which scripts/parts/shapes.lua draws on the fly.
--- usage: tide scripts/workers.lua [--workers 2] [--epochs 2] [--noise 0.3] …   (--help)
local here = arg[0]:match "^(.*)/[^/]*$" or "."
package.path = here .. "/parts/?.lua;" .. package.path   -- where workers find modules, too
local tide = require "tide"
local nn, optim, data = tide.nn, tide.optim, tide.data

local opt = tide.options {workers = 1, epochs = 2, batch = 32, n = 4000, side = 24, noise = 0.3, lr = 3e-3, seed = 1}
tide.manual_seed(opt.seed)

local shapes = data.module("shapes", {n = opt.n, side = opt.side, noise = opt.noise})
local loader = data.Loader(shapes, {batch = opt.batch, shuffle = true, workers = opt.workers})
local net = nn.Sequential(
  nn.Conv2d(1, 8, 5, {stride = 2, padding = 2}), nn.ReLU(),
  nn.Conv2d(8, 16, 3, {stride = 2, padding = 1}), nn.ReLU(),
  nn.Conv2d(16, 32, 3, {stride = 2, padding = 1}), nn.ReLU(),
  nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 2)
)
local criterion, adam = nn.CrossEntropyLoss(), optim.Adam(net:parameters(), {lr = opt.lr})

for epoch = 1, opt.epochs do
  local loss, accuracy = tide.metrics.Mean(), tide.metrics.Accuracy()
  for x, y in loader:epoch() do                          -- new drawings in each epoch, so this is a test as well
    adam:zero_grad()
    local scores = net(x)
    local l = criterion(scores, y)
    l:backward()
    adam:step()
    loss:add(l)
    accuracy:add(scores, y)
  end
  print(("epoch %d  loss %.4f  accuracy %.4f  waited for data %.1f %% of the time"):format(epoch, loss:value(), accuracy:value(),
                                                                                         100 * loader:stats().share))
end
