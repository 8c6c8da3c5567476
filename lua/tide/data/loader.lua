--- Loader: a dataset in batches, shuffled, gathered in the background, on a device.
local core = require "tide.core"
local datasets = require "tide.data.dataset"
local util = require "tide.util"

local M = {}

---@class tide.data.Loader
---@field dataset any
---@field batch integer
local Loader = {__name = "Loader"}
Loader.__index = Loader

--- How many batches an epoch has.
function Loader:__len()
  local n = #self.dataset
  return self.drop_last and n // self.batch or (n + self.batch - 1) // self.batch
end

function Loader:__tostring()
  return ("Loader of %d batches of %d: %s"):format(#self, self.batch, tostring(self.dataset))
end

local defaults = {batch = 1, shuffle = false, drop_last = false, device = false, transform = false, prefetch = 2, workers = 1}

--- Batches of a dataset:
---
---     local loader = data.Loader(train, {batch = 64, shuffle = true, device = "cuda"})
---     for x, y in loader:epoch() do … end
---
--- Datasets made of tensors are gathered by background threads; others, and `transform`, run on the script's thread.
---@param dataset any
---@param opts table?   batch = 1, shuffle = false, drop_last = false (a last batch that is smaller), device = "cpu",
---                     transform(x, y) → x, y of each batch, prefetch = 2 (batches ahead; 0: none), workers = 1 (threads)
---@return tide.data.Loader
function M.Loader(dataset, opts)
  datasets.expect_dataset("Loader", dataset)
  local o = util.named("Loader", opts, defaults)
  o.batch = util.integer("Loader", "batch", o.batch, 1)
  o.prefetch = util.integer("Loader", "prefetch", o.prefetch, 0)
  o.workers = util.integer("Loader", "workers", o.workers, 1)
  util.expect(not o.transform or type(o.transform) == "function", "Loader", "transform", "a function", o.transform)
  util.expect(not o.device or type(o.device) == "string", "Loader", "device", "the name of a device", o.device)
  o.dataset = dataset
  return setmetatable(o, Loader)
end

--- Whether x is a Loader.
function M.is_loader(x) return getmetatable(x) == Loader end

local function on_device(device, t, ...)
  if t == nil then return end
  if core.is_tensor(t) and t.device ~= device then t = t:to(device) end
  return t, on_device(device, ...)
end

--- Places in an order that is new for each epoch, or nil for 1, 2, 3, …
local function order_of(self)
  return self.shuffle and core.ops.randperm(#self.dataset, {device = "cpu"}) or nil
end

--- A function that gives the batches of one epoch, gathered by threads; nil where the dataset is not made of tensors.
local function gathered(self, order)
  local base, indices = datasets.tensors_behind(self.dataset)
  if not base or #base.tensors > 2 or self.prefetch == 0 or #base == 0 then return nil end
  for _, t in ipairs(base.tensors) do
    if t.device ~= "cpu" or t.requires_grad then return nil end
  end
  local x, y = base.tensors[1], base.tensors[2]
  local batcher = self.idle
  self.idle = nil                                        -- an epoch inside an epoch makes one of its own
  if not batcher then
    batcher = core.batcher(x, y, {batch = self.batch, drop_last = self.drop_last, ahead = self.prefetch, threads = self.workers,
                                  scale = x.dtype == "u8" and base.scale or nil})
  end
  if indices then order = order and indices:index_select(order, 1) or indices end
  batcher:start(order)
  return function()
    local bx, by = batcher:next()
    if bx == nil then self.idle = batcher end
    return bx, by
  end
end

--- The same on the script's thread, for any dataset.
local function by_hand(self, order)
  local n, from = #self.dataset, 1
  order = order or core.ops.arange(1, n + 1, {dtype = "i64", device = "cpu"})
  return function()
    local count = math.min(self.batch, n - from + 1)
    if count < 1 or self.drop_last and count < self.batch then return nil end
    local indices = order:narrow(1, from, count)
    from = from + count
    return datasets.batch(self.dataset, indices)
  end
end

local function finished(self, bar, ...)
  if ... == nil then
    if bar then bar:finish() end
    return nil
  end
  if bar then bar:advance() end
  if self.device then return on_device(self.device, ...) end
  return ...
end

local function transformed(f, ...)
  if ... == nil then return nil end
  return f(...)
end

--- The batches of one epoch: `for x, y in loader:epoch() do`.
---@param opts table?   progress: a label, for a bar with rate and time left; show: a metric, or a function that gives a text
---@return fun(): tide.Tensor?, tide.Tensor?
function Loader:epoch(opts)
  local o = util.named("epoch", opts, {progress = false, show = false})
  local order = order_of(self)
  local next_batch = gathered(self, order) or by_hand(self, order)
  local bar = o.progress and require "tide.progress".bar(o.progress, #self, {show = o.show or nil}) or nil
  local f = self.transform
  return function()
    if f then return finished(self, bar, transformed(f, next_batch())) end
    return finished(self, bar, next_batch())
  end, nil, nil, bar
end

return M
