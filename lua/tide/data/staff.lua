--- The loader's side of workers that run Lua modules: each has a Lua state of its own and prepares whole batches.
local core = require "tide.core"
local datasets = require "tide.data.dataset"
local modules = require "tide.data.module"

local M = {}

--- The dataset behind subsets and the places in it, if workers can read it themselves: a module's, or one of tensors.
local function readable(dataset)
  local base, indices = datasets.behind(dataset)
  if modules.is(base) then return base, indices end
  return datasets.plain_tensors(base) and base or nil, indices
end

--- Whether a loader's samples are read or transformed by a module.
function M.wanted(loader)
  if type(loader.collate) == "function" then return false end
  local base = datasets.behind(loader.dataset)
  return loader.module ~= nil or loader.collate ~= nil or modules.is(base)
end

local function hire(loader, base)
  local threaded = loader.prefetch > 0 and loader.workers > 0
  local threads = threaded and loader.workers or 0
  local ahead = threaded and math.min(64, math.max(loader.prefetch, threads)) or 1
  return {ahead = ahead, core.workers("tide.data.worker", {threads = threads, ahead = ahead}, {
    dataset = base and base.name, options = base and base.options, tensors = base and base.tensors, scale = base and base.scale,
    transform = loader.module, collate = loader.collate, steps = loader.steps, threaded = threaded,
  })}
end

--- A function that gives the batches of one epoch, and one that gives up what is left of it.
function M.epoch(loader, order, seed, place)
  local base, indices = readable(loader.dataset)
  local staff = loader.staff
  loader.staff = nil                                     -- an epoch inside an epoch makes one of its own
  staff = staff or hire(loader, base)
  local workers = staff[1]
  local n, from, waiting = #loader.dataset, 1, 0
  order = order or core.ops.arange(1, n + 1, {dtype = "i64", device = "cpu"})
  if base and indices then order = indices:index_select(order, 1) end

  local function submit()
    local count = math.min(loader.batch, n - from + 1)
    if count < 1 or loader.drop_last and count < loader.batch then return end
    local rows = order:narrow(1, from, count)
    from = from + count
    if base then workers:submit(rows, seed, place)
    else workers:submit(rows, seed, place, datasets.batch(loader.dataset, rows)) end
    waiting = waiting + 1
  end
  local function leave()
    if not workers then return end
    local mine = workers
    workers = nil
    mine:stop()
    loader.staff = staff
  end
  local function arrived(ok, ...)
    waiting = waiting - 1
    if not ok then
      leave()
      core.error("Loader: " .. ...)
    end
    submit()
    return ...
  end

  workers:start()
  for _ = 1, staff.ahead do submit() end
  return function()
    if not workers then return nil end
    if waiting > 0 then return arrived(workers:next()) end
    leave()
  end, leave
end

return M
