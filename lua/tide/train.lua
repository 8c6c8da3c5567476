--- The usual training loop, for those who do not want to write it.
local core = require "tide.core"
local util = require "tide.util"

local M = {}

local defaults = {
  optimizer = false, criterion = false, epochs = 1, batch = 64, shuffle = true, device = false, validation = false,
  metrics = {"accuracy"}, patience = false, watch = false, checkpoint = false, log = false, clip = false, scheduler = false,
  progress = true, on_epoch = false,
}

--- Whether a value of `name` is better than the best: losses fall, other measures rise.
local function better(name, value, best)
  if best == nil then return value == value end
  if name:find "loss" then return value < best end
  return value > best
end

--- One pass over the training data; the mean loss.
local function train_epoch(net, o, loader, label)
  local mean = require "tide.metrics".Mean()
  local clip = o.clip and require "tide.nn.utils".clip_grad_norm_
  local params = o.clip and net:parameters()
  net:train()
  for x, y in loader:epoch {progress = label, show = mean} do
    o.optimizer:zero_grad()
    local loss = o.criterion(net(x), y)
    loss:backward()
    if clip then clip(params, o.clip) end
    o.optimizer:step()
    mean:add(loss, x:size(1))
  end
  return mean:value()
end

local function expect_callable(who, what, x)
  local mt = type(x) == "table" and getmetatable(x)
  util.expect(type(x) == "function" or mt and mt.__call, who, what, "a loss such as nn.CrossEntropyLoss()", x)
end

--- Trains a network: for each epoch a pass over the data, an evaluation, a line of results, and perhaps a checkpoint.
---@param net tide.nn.Module
---@param dataset any   a dataset or a Loader
---@param opts table    optimizer, criterion (required); epochs = 1, batch = 64, shuffle = true, device, validation: a dataset,
---                     metrics = {"accuracy"}, patience: epochs without an improvement of `watch` before it stops, watch: the
---                     name of a result ("accuracy", or "loss" where there are no metrics), checkpoint: a file for the best
---                     weights, log: a tide.logger, clip: greatest gradient norm, scheduler: step() each epoch, progress = true,
---                     on_epoch(result): returns false to stop
---@return table[] history   a table of results for each epoch
function M.fit(net, dataset, opts)
  local o = util.named("train.fit", opts, defaults)
  util.expect(type(o.optimizer) == "table" and o.optimizer.step, "train.fit", "optimizer", "an optimizer", o.optimizer)
  expect_callable("train.fit", "criterion", o.criterion)
  o.epochs = util.integer("train.fit", "epochs", o.epochs, 1)
  local data = require "tide.data"
  local first = net:parameters()[1]
  local device = o.device or first and first.device
  local loader = data.is_loader(dataset) and dataset
                 or data.Loader(dataset, {batch = o.batch, shuffle = o.shuffle, device = device})
  local watch = o.watch or not o.validation and "train_loss" or o.metrics[1] or "loss"
  local history, best, since = {}, nil, 0
  for epoch = 1, o.epochs do
    local start = core.time()
    local result = {epoch = epoch, lr = o.optimizer.lr}
    result.train_loss = train_epoch(net, o, loader, o.progress and ("epoch %d/%d"):format(epoch, o.epochs) or nil)
    if o.validation then
      for k, v in pairs(net:evaluate(o.validation, {criterion = o.criterion, metrics = o.metrics, device = device})) do
        if type(v) == "number" and k ~= "count" then result[k] = v end
      end
    end
    result.seconds = core.time() - start
    history[epoch] = result
    if o.log then o.log:write(result) end
    if result[watch] == nil then util.fail("train.fit: watch: there is no result '%s'", tostring(watch)) end
    if better(watch, result[watch], best) then
      best, since = result[watch], 0
      if o.checkpoint then
        net:save(o.checkpoint, {metadata = {epoch = epoch, [watch] = ("%.6g"):format(best)}})
      end
    else
      since = since + 1
    end
    if o.scheduler then o.scheduler:step(result[watch]) end
    if o.on_epoch and o.on_epoch(result) == false then break end
    if o.patience and since >= o.patience then break end
  end
  return history
end

return M
