--- Lua modules that a loader's workers run, and datasets that are such modules. Workers find them by name on package.path.
local core = require "tide.core"
local util = require "tide.util"

local M = {}

--- Raises unless workers will find the module.
---@param who string
---@param what string   the option
---@param name string
function M.expect(who, what, name)
  util.expect(type(name) == "string" and name ~= "", who, what, "the name of a module", name)
  if package.searchpath(name, package.path) or package.searchpath(name, package.cpath) then return end
  local here = package.preload[name] or package.loaded[name]
  util.fail("%s: %s: there is no module '%s' on package.path (%s) or package.cpath (%s)%s", who, what, name, package.path, package.cpath,
            here and "; it is known to this script alone, and workers read it from a file" or "")
end

--- The function of a module: the module itself, or the one that stands under a name in its table.
---@param name string
---@param key string
---@return function
function M.fetch(name, key)
  local m = require(name)
  local f = type(m) == "table" and m[key] or m
  if type(f) ~= "function" then
    util.fail("the module '%s' gives %s: expected a function, or a table with a function '%s'", name, util.describe(m), key)
  end
  return f
end

--- The dataset of a module: a table with the functions size() and get(i).
---@param name string
---@param options any
---@return {size: fun(): integer, get: fun(i: integer): any ...}
function M.open(name, options)
  local m = require(name)
  if type(m) == "function" then
    m = m(options)
  elseif options ~= nil then
    util.fail("the module '%s' takes no options: it gives %s, not a function", name, util.describe(m))
  end
  if type(m) ~= "table" or type(m.size) ~= "function" or type(m.get) ~= "function" then
    util.fail("the module '%s' gives %s: expected a table with the functions size() and get(i), or a function that makes one", name,
              util.describe(m))
  end
  return m
end

---@class tide.data.ModuleDataset
---@field name string      of the module
---@field options any      what it was opened with
---@field opened {size: fun(): integer, get: fun(i: integer): any ...}   for this thread
local ModuleDataset = {__name = "ModuleDataset"}
ModuleDataset.__index = ModuleDataset

function ModuleDataset:__len() return self.n end

function ModuleDataset:__tostring() return ("%s samples of the module '%s'"):format(util.thousands(self.n), self.name) end

--- One sample, read on this thread.
---@param i integer   1 .. #self; negative counts from the end
function ModuleDataset:get(i)
  if math.type(i) ~= "integer" or i == 0 or i > self.n or i < -self.n then
    util.fail("module '%s': expected a sample, 1 to %d, got %s", self.name, self.n, util.describe(i))
  end
  return self.opened.get(i > 0 and i or self.n + 1 + i)
end

--- A dataset that a Lua module reads.
---@param name string
---@param options any   nil, booleans, numbers, strings, tensors and tables of them
---@return tide.data.ModuleDataset
function M.module(name, options)
  M.expect("module", "name", name)
  local opened = M.open(name, options)
  local n = opened.size()
  if math.type(n) ~= "integer" or n < 0 then
    util.fail("the module '%s': size(): expected an integer >= 0, got %s", name, util.describe(n))
  end
  return setmetatable({name = name, options = options, opened = opened, n = n}, ModuleDataset)
end

--- Whether a dataset is a module's.
function M.is(dataset) return getmetatable(dataset) == ModuleDataset end

--- A sample's random numbers, tide's and Lua's own: by seed, epoch and place alone.
function M.seed_sample(seed, epoch, place)
  local s = core.sample_seed(seed, epoch, place)
  core.set_random_state {s, 0}
  math.randomseed(s)
end

return M
