--- What a loader's worker does, in a Lua state of its own: samples from a module or from tensors, through a module's transform, to
--- a batch. tide.data.staff is the other side.
local core = require "tide.core"
local datasets = require "tide.data.dataset"
local modules = require "tide.data.module"
local util = require "tide.util"

--- Where samples come from: get(i, k, sources), the i-th of all and the k-th of this batch.
local function source_of(config)
  if config.dataset then
    local get = modules.open(config.dataset, config.options).get
    return function(i) return get(i) end
  end
  local function row(tensors, i, scale)
    local sample = {}
    for k, t in ipairs(tensors) do sample[k] = t[i]:clone() end        -- a copy: the transform may write to it
    if scale and sample[1].dtype == "u8" then sample[1] = sample[1]:to "f32" * scale end
    return table.unpack(sample)
  end
  if config.tensors then return function(i) return row(config.tensors, i, config.scale) end end
  return function(_, k, sources) return row(sources, k) end
end

--- A batch's value as it may leave this state: tensors with memory that nothing here keeps.
local function handed(v)
  if core.is_tensor(v) then
    if v.device ~= "cpu" then util.fail("expected tensors on the CPU, got one on %s: the loader moves batches to its device", v.device) end
    return v:clone()
  end
  local t = type(v)
  if t == "table" then
    local copy = {}
    for key, value in pairs(v) do copy[key] = handed(value) end
    return copy
  end
  if t == "function" or t == "userdata" or t == "thread" then
    util.fail("a batch is made of tensors, numbers, strings and tables of them, got %s", util.describe(v))
  end
  return v
end

--- Calls make(place, …) for what the options name; the result collates a batch.
local function builder(config, at)
  at.stage = config.dataset and ("dataset '%s'"):format(config.dataset) or "dataset"
  local get, transform, collate = source_of(config), nil, nil
  if config.transform then
    at.stage = ("transform '%s'"):format(config.transform)
    transform = modules.fetch(config.transform, "transform")
  end
  if config.collate then
    at.stage = ("collate '%s'"):format(config.collate)
    collate = modules.fetch(config.collate, "collate")
  end
  local chain = config.steps and core.chain(config.steps)
  local function transformed(...)
    if not transform then return ... end
    at.stage = ("transform '%s'"):format(config.transform)
    return transform(...)
  end
  local function sample(i, k, sources)
    at.stage = config.dataset and ("dataset '%s'"):format(config.dataset) or "dataset"
    return table.pack(transformed(get(i, k, sources)))
  end
  local function collated(samples)
    if not collate then return table.pack(datasets.collate(samples)) end
    at.stage = ("collate '%s'"):format(config.collate)
    local batch = table.pack(collate(samples))
    for k = 1, batch.n do batch[k] = handed(batch[k]) end
    return batch
  end
  return sample, function(samples, rows, seed, epoch)
    at.stage = "batch"
    local batch = collated(samples)
    if batch[1] == nil then util.fail "it gives nothing" end
    at.stage = "transform"
    if chain then batch[1] = core.augment(batch[1], chain, seed, epoch, rows) end
    return batch
  end
end

---@param config table   dataset, options (a module), tensors, scale (of the script), transform, collate (modules), steps, threaded
---@param given_up fun(): boolean   whether the script wants this epoch no more
return function(config, given_up)
  local at = {}                                          -- what is being done, for messages
  local sample, batch

  local function run(rows, seed, epoch, ...)
    if not sample then sample, batch = builder(config, at) end
    local samples, sources = {}, {...}
    for k, i in ipairs(rows:totable()) do
      if given_up() then return nil end
      at.sample = i
      modules.seed_sample(seed, epoch, i)
      samples[k] = sample(i, k, sources)
    end
    at.sample = nil
    local result = batch(samples, rows, seed, epoch)
    for _, t in ipairs(sources) do t:free() end
    return result
  end

  local function explain(message)
    local where = at.sample and (" at sample %d"):format(at.sample) or ""
    return debug.traceback(("%s%s: %s"):format(at.stage or "worker", where, tostring(message)), 2)
  end

  core.set_grad_enabled(false)                           -- nothing is recorded from one state to another
  if config.threaded then core.set_num_threads(1) end
  function os.exit() error("os.exit: a loader's worker cannot end the process", 2) end -- luacheck: ignore 122
  return function(...)
    local ok, result = xpcall(run, explain, ...)
    at.sample = nil
    if not ok then return false, result end
    if not result then return false, "given up" end
    return true, table.unpack(result, 1, result.n)
  end
end
