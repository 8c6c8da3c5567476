--- Loader: a dataset in batches, shuffled, prepared in the background, on a device.
local core = require "tide.core"
local datasets = require "tide.data.dataset"
local modules = require "tide.data.module"
local staff = require "tide.data.staff"
local transforms = require "tide.data.transforms"
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

local defaults = {
  batch = 1, shuffle = false, drop_last = false, device = false, transform = false, collate = false, prefetch = 2, workers = 1,
}

--- Sorts a transform by what runs it: `module`, by a module on the workers; `chain`, in C on the workers; `transform`, a function on the
--- script's thread.
local function take_transform(o)
  local t = o.transform
  o.transform = nil
  if not t then return end
  local mt = getmetatable(t)
  if type(t) == "string" then
    modules.expect("Loader", "transform", t)
    o.module = t
  elseif type(t) == "function" or type(t) == "table" and mt and mt.__call and mt ~= transforms.Transform then
    o.transform = t
  else
    o.chain, o.steps = transforms.chain("Loader", t)
  end
end

local function take_collate(o)
  if type(o.collate) == "string" then
    modules.expect("Loader", "collate", o.collate)
  elseif o.collate then
    util.expect(type(o.collate) == "function", "Loader", "collate", "the name of a module, or a function", o.collate)
    if o.module then
      util.fail("Loader: collate: expected the name of a module, as transform is one, got a function, which only this thread can call")
    end
  end
  o.collate = o.collate or nil
end

--- Batches of a dataset:
---
---     local loader = data.Loader(train, {batch = 64, shuffle = true, device = "cuda"})
---     for x, y in loader:epoch() do … end
---
--- A transform is one of data.transforms, or a list of them: they are in C, and prepare x sample by sample. Or the name of a Lua
--- module, which is run by worker threads, each in a Lua state of its own: transform = "augment" finds augment.lua on package.path,
--- which returns a function (x, y) → x, y of one sample, or a table with such a function `transform`. Nothing of the script is seen
--- there: no globals, no upvalues. Or a function transform(x, y) → x, y: a closure gets whole batches, on the script's thread.
--- `collate` makes a batch of a list of samples, each a list of what the transform returned; it is named or given likewise.
---
---     local T = data.transforms
---     local loader = data.Loader(train, {batch = 128, shuffle = true, workers = 2, transform = {
---       T.RandomCrop(32, {padding = 4}), T.RandomHorizontalFlip(), T.Normalize({0.49, 0.48, 0.45}, {0.25, 0.24, 0.26})}})
---
--- Datasets made of tensors, and those of data.module, are read and transformed by background threads; others on the script's
--- thread. Batches are the same with any number of workers: what is random in them depends on the seed, the epoch and the sample. In a
--- module, tide's random numbers and math.random are seeded so before each sample.
---@param dataset any
---@param opts table?   batch = 1, shuffle = false, drop_last = false (a last batch that is smaller), device = "cpu",
---                     transform, collate, workers = 1 (background threads; 0: none), prefetch = 2 (batches ahead, at least one
---                     for each worker that runs modules; 0: none)
---@return tide.data.Loader
function M.Loader(dataset, opts)
  datasets.expect_dataset("Loader", dataset)
  local o = util.named("Loader", opts, defaults)
  o.batch = util.integer("Loader", "batch", o.batch, 1)
  o.prefetch = util.integer("Loader", "prefetch", o.prefetch, 0)
  o.workers = util.integer("Loader", "workers", o.workers, 0)
  util.expect(o.workers <= 16, "Loader", "workers", "at most 16", o.workers)
  util.expect(o.prefetch <= 64, "Loader", "prefetch", "at most 64", o.prefetch)
  util.expect(not o.device or type(o.device) == "string", "Loader", "device", "the name of a device", o.device)
  take_transform(o)
  take_collate(o)
  o.dataset = dataset
  o.epochs, o.batches, o.wait, o.elapsed = 0, 0, 0.0, 0.0
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

--- What the random choices of this epoch depend on: the seed, and the place of its stream, which moves on by one.
local function draw_of(self)
  if not staff.wanted(self) and not (self.chain and self.chain:is_random()) then return 0, 0 end
  local state = core.random_state()
  core.random()
  return state[1], state[2]
end

--- A function that gives the batches of one epoch, prepared by threads; nil where the dataset is not made of tensors. And one that
--- gives up what is left of the epoch.
local function gathered(self, order, seed, place)
  local base, indices = datasets.behind(self.dataset)
  if self.collate or not datasets.plain_tensors(base) or #base.tensors > 2 or #base == 0 then return nil end
  local x, y = base.tensors[1], base.tensors[2]
  local batcher = self.idle
  self.idle = nil                                        -- an epoch inside an epoch makes one of its own
  if not batcher then
    local ahead = self.prefetch > 0 and self.workers > 0
    batcher = core.batcher(x, y, {batch = self.batch, drop_last = self.drop_last, ahead = ahead and self.prefetch or 1,
                                  threads = ahead and self.workers or 0, scale = x.dtype == "u8" and base.scale or nil,
                                  chain = self.chain})
  end
  if indices then order = order and indices:index_select(order, 1) or indices end
  batcher:start(order, seed, place)
  local function leave()
    if batcher then
      batcher:stop()
      self.idle, batcher = batcher, nil
    end
  end
  return function()
    if not batcher then return nil end
    local bx, by = batcher:next()
    if bx == nil then leave() end
    return bx, by
  end, leave
end

local function augmented(self, indices, seed, place, x, ...)
  if not self.chain then return x, ... end
  return core.augment(x, self.chain, seed, place, indices), ...
end

--- The same on the script's thread, for any dataset.
local function by_hand(self, order, seed, place)
  local n, from = #self.dataset, 1
  order = order or core.ops.arange(1, n + 1, {dtype = "i64", device = "cpu"})
  return function()
    local count = math.min(self.batch, n - from + 1)
    if count < 1 or self.drop_last and count < self.batch then return nil end
    local indices = order:narrow(1, from, count)
    from = from + count
    if self.collate then return augmented(self, indices, seed, place, self.collate(datasets.samples(self.dataset, indices))) end
    return augmented(self, indices, seed, place, datasets.batch(self.dataset, indices))
  end
end

local function transformed(self, ...)
  if ... == nil or not self.transform then return ... end
  return self.transform(...)
end

--- Ends what an epoch has open, however its loop was left.
local Epoch = {}
Epoch.__index = Epoch

function Epoch:close()
  if self.leave then self.leave() end
  if self.bar then self.bar:finish() end
  self.leave, self.bar = nil, nil
end

Epoch.__close = Epoch.close

--- Notes what a batch took to come, and passes it on.
local function arrived(self, epoch, start, ...)
  local now = core.time()
  self.wait = self.wait + (now - start)
  self.elapsed = self.elapsed + (now - epoch.last)
  epoch.last = now
  if ... == nil then
    epoch:close()
    return nil
  end
  self.batches = self.batches + 1
  if epoch.bar then epoch.bar:advance() end
  return ...
end

--- The batches of one epoch: `for x, y in loader:epoch() do`.
---@param opts table?   progress: a label, for a bar with rate and time left; show: a metric, or a function that gives a text
---@return fun(): tide.Tensor?, tide.Tensor?
function Loader:epoch(opts)
  local o = util.named("epoch", opts, {progress = false, show = false})
  local epoch = setmetatable({last = core.time()}, Epoch)
  local seed, place = draw_of(self)
  local order = order_of(self)
  local next_batch, leave = (staff.wanted(self) and staff.epoch or gathered)(self, order, seed, place)
  next_batch = next_batch or by_hand(self, order, seed, place)
  epoch.leave = leave
  epoch.bar = o.progress and require "tide.progress".bar(o.progress, #self, {show = o.show or nil}) or nil
  self.epochs = self.epochs + 1
  self.wait = self.wait + (core.time() - epoch.last)
  local device = self.device
  return function()
    local start = core.time()
    if device then return arrived(self, epoch, start, on_device(device, transformed(self, next_batch()))) end
    return arrived(self, epoch, start, transformed(self, next_batch()))
  end, nil, nil, epoch
end

--- How long the script has waited for batches so far: epochs and batches begun, `wait` and `elapsed` in seconds (from the
--- beginning of each epoch to its last batch), and their ratio `share`.
---@return {epochs: integer, batches: integer, wait: number, elapsed: number, share: number}
function Loader:stats()
  return {epochs = self.epochs, batches = self.batches, wait = self.wait, elapsed = self.elapsed,
          share = self.elapsed > 0 and self.wait / self.elapsed or 0}
end

return M
