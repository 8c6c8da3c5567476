--- Datasets: what has a length and gives samples by place, counted from 1.
---
--- A dataset is any table with `__len` and either get(self, i), which gives the tensors of one sample, or batch(self, indices),
--- which gives those of many, for an i64 tensor of places.
local core = require "tide.core"
local util = require "tide.util"

local M = {}

---@class tide.data.TensorDataset
---@field tensors tide.Tensor[]
---@field classes string[]?    names of classes 1, 2, …
---@field scale number?        u8 samples are given as f32 times this
local TensorDataset = {__name = "TensorDataset"}

function TensorDataset.__index(self, key)
  if math.type(key) == "integer" then return {self:get(key)} end
  return TensorDataset[key]
end

function TensorDataset:__len() return self.n end

function TensorDataset:__tostring()
  local parts = {}
  for i, t in ipairs(self.tensors) do parts[i] = util.describe(t) end
  return ("TensorDataset of %s samples: %s"):format(util.thousands(self.n), table.concat(parts, ", "))
end

local function scaled(self, first, ...)
  if self.scale and first.dtype == "u8" then first = first:to "f32" * self.scale end
  return first, ...
end

--- One sample: its tensors, without the first axis. dataset[i] gives them as a list.
---@param i integer   1 .. #self; negative counts from the end
function TensorDataset:get(i)
  if math.type(i) ~= "integer" or i == 0 or i > self.n or i < -self.n then
    util.fail("TensorDataset: expected a sample, 1 to %d, got %s", self.n, util.describe(i))
  end
  local sample = {}
  for k, t in ipairs(self.tensors) do sample[k] = t[i] end
  return scaled(self, table.unpack(sample))
end

--- Several samples: tensors with a first axis.
---@param indices tide.Tensor   (B) i64
function TensorDataset:batch(indices)
  local batch = {}
  for k, t in ipairs(self.tensors) do batch[k] = t:index_select(indices, 1) end
  return scaled(self, table.unpack(batch))
end

--- Samples from tensors whose first axes are equally long: TensorDataset(x, y).
---@param ... tide.Tensor|table   tensors, then perhaps {classes = names, scale = 1 / 255}
---@return tide.data.TensorDataset
function M.TensorDataset(...)
  local args, opts = {...}, {}
  if #args > 0 and not core.is_tensor(args[#args]) then opts = table.remove(args) end
  opts = util.named("TensorDataset", opts, {classes = false, scale = false})
  if #args == 0 then util.fail "TensorDataset: expected at least one Tensor, got none" end
  for i, t in ipairs(args) do
    util.expect(core.is_tensor(t) and t:dim() > 0, "TensorDataset", ("argument %d"):format(i), "a Tensor with a first axis", t)
    if t:size(1) ~= args[1]:size(1) then
      util.fail("TensorDataset: expected first axes of one length, got %s and %s", util.describe(args[1]), util.describe(t))
    end
  end
  local self = {tensors = args, n = args[1]:size(1), classes = opts.classes or nil, scale = opts.scale or nil}
  return setmetatable(self, TensorDataset)
end

---@class tide.data.Subset
---@field dataset any
---@field indices tide.Tensor   (n) i64, places in dataset
---@field classes string[]?
local Subset = {__name = "Subset"}

function Subset.__index(self, key)
  if math.type(key) == "integer" then return {self:get(key)} end
  return Subset[key]
end

function Subset:__len() return self.n end

function Subset:__tostring() return ("Subset of %s samples of %s"):format(util.thousands(self.n), tostring(self.dataset)) end

--- One sample.
---@param i integer
function Subset:get(i)
  if math.type(i) ~= "integer" or i == 0 or i > self.n or i < -self.n then
    util.fail("Subset: expected a sample, 1 to %d, got %s", self.n, util.describe(i))
  end
  return M.get(self.dataset, self.indices[i]:item())
end

--- Several samples.
---@param indices tide.Tensor   (B) i64
function Subset:batch(indices) return M.batch(self.dataset, self.indices:index_select(indices, 1)) end

--- Some samples of a dataset.
---@param dataset any
---@param indices integer[]|tide.Tensor   places, 1 .. #dataset
---@return tide.data.Subset
function M.subset(dataset, indices)
  M.expect_dataset("subset", dataset)
  local t = indices
  if not core.is_tensor(t) then
    util.expect(type(t) == "table", "subset", "indices", "a list of places or an i64 Tensor", t)
    for i, v in ipairs(t) do util.expect(math.type(v) == "integer", "subset", ("indices[%d]"):format(i), "an integer", v) end
    t = core.tensor(t, {dtype = "i64", device = "cpu"})
  end
  util.expect(t.dtype == "i64" and t:dim() == 1, "subset", "indices", "a list of places or an i64 Tensor", t)
  if t:numel() > 0 then
    local low, high = t:amin():item(), t:amax():item()
    if low < 1 or high > #dataset then
      util.fail("subset: expected places from 1 to %d, got %d", #dataset, low < 1 and low or high)
    end
  end
  return setmetatable({dataset = dataset, indices = t, n = t:size(1), classes = dataset.classes}, Subset)
end

--- Splits a dataset at random into parts.
---@param dataset any
---@param sizes number[]   lengths that add up to #dataset, or shares that add up to 1
---@return tide.data.Subset ...
function M.random_split(dataset, sizes)
  M.expect_dataset("random_split", dataset)
  util.expect(type(sizes) == "table" and #sizes > 0, "random_split", "sizes", "a list of lengths or shares", sizes)
  local n, total, lengths = #dataset, 0, {}
  for i, s in ipairs(sizes) do
    util.expect(type(s) == "number" and s >= 0, "random_split", ("sizes[%d]"):format(i), "a number >= 0", s)
    total = total + s
  end
  if math.abs(total - 1) < 1e-9 and n ~= 1 then
    local used = 0
    for i, s in ipairs(sizes) do
      lengths[i] = i < #sizes and math.floor(s * n + 0.5) or n - used
      used = used + lengths[i]
    end
  elseif total == n then
    for i, s in ipairs(sizes) do lengths[i] = util.integer("random_split", ("sizes[%d]"):format(i), s, 0) end
  else
    util.fail("random_split: expected lengths that add up to %d or shares that add up to 1, got a sum of %s", n, total)
  end
  local order, parts, from = core.ops.randperm(n, {device = "cpu"}), {}, 1
  for i, length in ipairs(lengths) do
    parts[i] = M.subset(dataset, order:narrow(1, math.min(from, math.max(n, 1)), length):clone())
    from = from + length
  end
  return table.unpack(parts)
end

--- Raises unless x has a length and gives samples.
function M.expect_dataset(who, x)
  local mt = type(x) == "table" and getmetatable(x)
  local fits = type(x) == "table" and (mt and mt.__len or #x > 0) and (x.get or x.batch)
  util.expect(fits, who, "dataset", "a dataset: a table with a length and get(self, i) or batch(self, indices)", x)
end

--- One sample of any dataset.
function M.get(dataset, i)
  if dataset.get then return dataset:get(i) end
  local sample = table.pack(dataset:batch(core.tensor({i}, {dtype = "i64", device = "cpu"})))
  for k = 1, sample.n do sample[k] = sample[k]:squeeze(1) end
  return table.unpack(sample, 1, sample.n)
end

--- A batch of samples, stacked: numbers become tensors, i64 for integers.
---@param samples table[]   as table.pack gives them
---@return tide.Tensor ...
function M.collate(samples)
  local columns = {}
  for _, sample in ipairs(samples) do
    for k = 1, sample.n do
      local v = sample[k]
      if not core.is_tensor(v) then v = core.tensor(v, {dtype = math.type(v) == "integer" and "i64" or nil}) end
      columns[k] = columns[k] or {}
      table.insert(columns[k], v)
    end
  end
  for k, list in ipairs(columns) do columns[k] = core.ops.stack(list) end
  return table.unpack(columns)
end

--- Samples of a dataset by their places, each as table.pack gives it.
---@param dataset any
---@param indices tide.Tensor   (B) i64
---@return table[]
function M.samples(dataset, indices)
  local samples = {}
  for k, i in ipairs(indices:totable()) do samples[k] = table.pack(M.get(dataset, i)) end
  return samples
end

--- Several samples of any dataset: those of get() are stacked.
function M.batch(dataset, indices)
  if dataset.batch then return dataset:batch(indices) end
  return M.collate(M.samples(dataset, indices))
end

--- The dataset behind subsets, and the places in it (nil: all).
---@return any, tide.Tensor?
function M.behind(dataset)
  if getmetatable(dataset) ~= Subset then return dataset, nil end
  local base, indices = M.behind(dataset.dataset)
  return base, indices and indices:index_select(dataset.indices, 1) or dataset.indices
end

--- Whether a dataset is made of tensors that workers may read: on the CPU, and without a gradient.
function M.plain_tensors(dataset)
  if getmetatable(dataset) ~= TensorDataset then return false end
  for _, t in ipairs(dataset.tensors) do
    if t.device ~= "cpu" or t.requires_grad then return false end
  end
  return true
end

return M
