--- Train a convolutional network on Fashion-MNIST to 91 % and more.
--- usage: tide train_fashion.lua [--device cuda] [--epochs 5] [--save fashion.safetensors] [--log fashion.csv] …   (--help)
local tide = require "tide"
local nn, optim, data = tide.nn, tide.optim, tide.data

local opt = tide.options {
  device = "cpu", epochs = 5, batch = 64, lr = 1e-3, dropout = 0.4, seed = 1, limit = 0, threads = 0, capture = true, save = "", log = "",
}
tide.manual_seed(opt.seed)
if opt.threads > 0 then tide.set_num_threads(opt.threads) end

local train, test = data.fashion_mnist()                 -- images (N, 1, 28, 28) in 0..1, labels 1..10
if opt.limit > 0 then
  local n = math.min(opt.limit, #train)
  train, test = data.random_split(train, {n, #train - n}), data.subset(test, tide.arange(1, math.min(n, #test) + 1, {dtype = "i64"}))
end

local net = nn.Sequential(
  nn.Conv2d(1, 32, 5, {padding = 2}), nn.ReLU(), nn.MaxPool2d(2),
  nn.Conv2d(32, 64, 5, {padding = 2}), nn.ReLU(), nn.MaxPool2d(2),
  nn.Flatten(),
  nn.Linear(64 * 7 * 7, 512), nn.ReLU(), nn.Dropout(opt.dropout),
  nn.Linear(512, #train.classes)
):to(opt.device)
print(net)

local criterion = nn.CrossEntropyLoss()
local adam = optim.Adam(net:parameters(), {lr = opt.lr})
local loader = data.Loader(train, {batch = opt.batch, shuffle = true, device = opt.device})
local lr = optim.schedule.cosine(opt.lr, 0, opt.epochs * #loader)
local log = opt.log ~= "" and tide.logger.csv(opt.log) or nil

local function train_step(x, y)
  adam:zero_grad()
  local loss = criterion(net(x), y)
  loss:backward()
  adam:step()
  return loss
end
if opt.capture then train_step = tide.capture(train_step) end -- recorded at first, then replayed; lr stays live

local start, step = tide.time(), 0
for epoch = 1, opt.epochs do
  net:train()
  local mean = tide.metrics.Mean()
  for x, y in loader:epoch {progress = ("epoch %d/%d"):format(epoch, opt.epochs), show = mean} do
    step = step + 1
    adam.lr = lr(step)
    mean:add(train_step(x, y))
  end
  local result = net:evaluate(test, {batch = 500, metrics = {"accuracy"}})
  local line = "epoch %d  loss %.4f  test accuracy %.2f %%  %.0f s"
  print(line:format(epoch, mean:value(), 100 * result.accuracy, tide.time() - start))
  if log then log:write {epoch = epoch, loss = mean:value(), accuracy = result.accuracy, seconds = tide.time() - start} end
end

print(("waited for data %.2f %% of the time"):format(100 * loader:stats().share))

local confusion = tide.metrics.ConfusionMatrix(train.classes)
net:eval()
tide.no_grad(function()
  for x, y in data.Loader(test, {batch = 500, device = opt.device}):epoch() do confusion:add(net(x), y) end
end)
print(confusion)
if opt.save ~= "" then
  tide.save(net, opt.save)
  print("saved in " .. opt.save)
end
