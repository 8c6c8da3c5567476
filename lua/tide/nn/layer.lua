--- Layers and losses that are C plugins, as modules: nn.Conv2d is found in the registry when it is first named.
local Module = require "tide.nn.module"
local core = require "tide.core"
local running = require "tide.nn.path".running
local util = require "tide.util"

local RAW = {}                                           -- key of the C module
local EXTRA = {}                                         -- key of the optional last input that was given to the constructor

local M = {}

local function leave(...)
  running.leaf = nil
  return ...
end

local function call(self, ...)
  running.leaf = self
  return leave(self[RAW](...))
end

--- A loss that was given a tensor of weights passes it as its third input.
local function call_weighted(self, x, target, weight)
  running.leaf = self
  if weight == nil then weight = self[EXTRA] or nil end
  return leave(self[RAW](x, target, weight))
end

local chaining = true

--- Whether a Sequential runs a layer and the activation behind it (Linear and ReLU, say) as one op. It does so from the
--- start; the results are equal to rounding. With `on` given, sets it.
---@param on boolean?
---@return boolean before
function M.chain(on)
  local before = chaining
  if on ~= nil then chaining = on ~= false end
  return before
end

--- then(m(x)) as one op; nil where m and then are not two C layers that go together so, or one of them is watched: a
--- class whose __call was replaced is to see every call.
---@param m tide.nn.Module
---@param after tide.nn.Module
---@param x tide.Tensor
---@return tide.Tensor?
function M.pair(m, after, x)
  local class, then_class = getmetatable(m), getmetatable(after)
  if not (chaining and class.absorbs and then_class.activates) then return nil end
  if class.__call ~= call or then_class.__call ~= call then return nil end
  running.leaf = m
  return leave(rawget(m, RAW):forward_act(rawget(after, RAW), x))
end

--- Whether m is a C layer that nobody watches: what it takes and gives is known to its caller alone.
---@param m tide.nn.Module
---@return boolean
function M.unwatched(m) return getmetatable(m).__call == call end

--- What of a C module's tensors is called `name`.
local function find(self, name)
  local raw = rawget(self, RAW)
  for _, t in ipairs(raw and raw:tensors() or {}) do
    if t.name == name then return t.tensor end
  end
end

local function get(class)
  return function(self, key)
    local method = class[key]
    if method ~= nil then return method end
    if key == "weight" and rawget(self, EXTRA) then return rawget(self, EXTRA) end
    return type(key) == "string" and find(self, key) or nil
  end
end

--- Assigning to a parameter or buffer shares that tensor: `decoder.weight = encoder.weight`.
local function set(self, key, value)
  if type(key) == "string" and core.is_tensor(value) and find(self, key) then
    rawget(self, RAW):set_tensor(key, value)
  else
    rawset(self, key, value)
  end
end

local methods = {}

function methods:extend()
  util.fail("%s: it is a C layer and cannot be extended; hold one in a field of an nn.Module", self.__name)
end

function methods:forward(...) return rawget(self, RAW)(...) end

function methods:own_tensors()
  local list = rawget(self, RAW):tensors()
  local extra = rawget(self, EXTRA)
  if extra then list[#list + 1] = {name = "weight", tensor = extra, is_buffer = true} end
  return list
end

function methods:set_training(on)
  rawset(self, "training", on)
  rawget(self, RAW):train(on)
end

--- The options by name, as they were given or by default.
function methods:options() return rawget(self, RAW):options() end

local function shown(value)
  if type(value) ~= "table" then return type(value) == "string" and '"' .. value .. '"' or tostring(value) end
  if #value == 1 then return shown(value[1]) end
  local parts = {}
  for i, v in ipairs(value) do parts[i] = shown(v) end
  return "{" .. table.concat(parts, ", ") .. "}"
end

--- Whether a value is what the schema's text says: "0.1", "true", "none", "{}".
local function is_default(value, text)
  if text == "none" then return value == nil or value == "none" end  -- the latter of an enum
  if text == nil then return false end
  if value == nil then return false end
  local s = shown(value)
  return s == text or s == '"' .. text .. '"' or (tonumber(s) ~= nil and tonumber(s) == tonumber(text))
end

--- "1, 32, 5, padding = 2": required options by place, others where they are not at their defaults.
function methods:describe()
  local values, parts, in_place = self:options(), {}, true
  for _, option in ipairs(core.layer_info(self.__name).options) do
    local value = values[option.name]
    if option.default == nil and in_place then
      parts[#parts + 1] = shown(value)
    else
      in_place = false
      if not is_default(value, option.default) then
        parts[#parts + 1] = ("%s = %s"):format(option.name, value == nil and "none" or shown(value))
      end
    end
  end
  if rawget(self, EXTRA) then parts[#parts + 1] = "weight = " .. util.describe(rawget(self, EXTRA)) end
  return table.concat(parts, ", ")
end

function methods:copy_with(copy)
  local other = Module.blank(getmetatable(self))
  local values = self:options()
  rawset(other, RAW, core.new_module(self.__name, values))
  rawset(other, EXTRA, rawget(self, EXTRA) and copy(rawget(self, EXTRA)) or false)
  for _, t in ipairs(rawget(self, RAW):tensors()) do
    rawget(other, RAW):set_tensor(t.name, copy(t.tensor))
  end
  other:set_training(self.training)
  return other
end

--- Whether the loss takes a tensor of weights as its last input, beside an option of that name.
local function takes_weight(info)
  return #info.inputs > 1 and info.inputs[#info.inputs].name == "weight"
end

--- Takes a tensor `weight` out of the named options, which cannot hold tensors.
local function split_weight(n, ...)
  local args = {...}
  local named = args[n]
  if type(named) ~= "table" or core.is_tensor(named) or not core.is_tensor(named.weight) then return nil, args end
  local rest = {}
  for k, v in pairs(named) do if k ~= "weight" then rest[k] = v end end
  args[n] = rest
  return named.weight, args
end

local function construct(class, weighted, ...)
  local self = Module.blank(class)
  local n = select("#", ...)
  if not weighted or n == 0 then
    rawset(self, RAW, core.new_module(class.__name, ...))
    rawset(self, EXTRA, false)
    return self
  end
  local weight, args = split_weight(n, ...)
  rawset(self, RAW, core.new_module(class.__name, table.unpack(args, 1, n)))
  rawset(self, EXTRA, weight or false)
  return self
end

--- The class of a C layer or loss.
---@param info table   what core.layer_info says
---@return table class
function M.class(info)
  local class = Module:extend(info.name)
  for name, f in pairs(methods) do class[name] = f end
  local weighted = info.kind == "loss" and takes_weight(info)
  class.__index = get(class)
  class.__newindex = set
  class.__call = weighted and call_weighted or call
  class.info = info
  class.absorbs, class.activates = info.absorbs, info.activates
  local mt = getmetatable(class)
  mt.__call = function(_, ...) return construct(class, weighted, ...) end
  return class
end

return M
