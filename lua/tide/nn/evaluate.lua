--- net:evaluate(dataset, opts): a network's loss and metrics on a dataset, in evaluation mode and without recording.
local core = require "tide.core"
local util = require "tide.util"

--- Modes of all modules, so that they can be set again.
local function modes_of(net)
  local modes = {}
  for i, m in ipairs(net:modules()) do modes[i] = {m, m.training} end
  return modes
end

local function device_of(net)
  local first = net:parameters()[1] or net:buffers()[1]
  return first and first.device
end

--- Metric objects by name: a name of tide.metrics ("accuracy") or an object that has add(output, target) and value().
local function metrics_of(list, criterion, dataset)
  local metrics = require "tide.metrics"
  local by_name, order = {}, {}
  local function put(name, metric)
    by_name[name] = metric
    order[#order + 1] = name
  end
  for key, m in pairs(list) do
    if type(m) == "string" then
      put(m, metrics.named(m, {classes = dataset.classes}))
    else
      util.expect(type(m) == "table" and m.add and m.value, "evaluate", "metrics", "names or metric objects", m)
      put(type(key) == "string" and key or m.name or tostring(key), m)
    end
  end
  local loss = criterion and metrics.Mean()
  return by_name, order, loss
end

--- Runs a network on a dataset.
---@param net tide.nn.Module
---@param dataset any      a dataset or a tide.data.Loader that gives x, target
---@param opts table?      batch = 256, metrics = {"accuracy"}, criterion: a loss whose mean is wanted, device: where net is,
---                        progress: a label
---@return table<string, any> result   a field for each metric, loss where a criterion is given, count of samples
return function(net, dataset, opts)
  local o = util.named("evaluate", opts,
                       {batch = 256, metrics = {"accuracy"}, criterion = false, device = false, progress = false})
  util.expect(dataset ~= nil, "evaluate", "dataset", "a dataset or a Loader", dataset)
  local data = require "tide.data"
  local loader = data.is_loader(dataset) and dataset
                 or data.Loader(dataset, {batch = o.batch, device = o.device or device_of(net)})
  local by_name, order, loss = metrics_of(o.metrics, o.criterion, loader.dataset)
  local modes, count = modes_of(net), 0
  net:eval()
  local ok, err = pcall(core.no_grad, function()
    for x, target in loader:epoch {progress = o.progress or nil} do
      local y = net(x)
      for _, name in ipairs(order) do by_name[name]:add(y, target) end
      if loss then loss:add(o.criterion(y, target), x:size(1)) end
      count = count + x:size(1)
    end
  end)
  for _, m in ipairs(modes) do m[1]:set_training(m[2]) end
  if not ok then error(err, 0) end
  local result = {count = count}
  for _, name in ipairs(order) do result[name] = by_name[name]:value() end
  if loss then result.loss = loss:value() end
  return result
end
