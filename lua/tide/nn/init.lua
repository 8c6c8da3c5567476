--- Networks: containers, classes of one's own, and every layer and loss that a plugin provides.
---@class tide.nn
local Module = require "tide.nn.module"
local containers = require "tide.nn.containers"
local core = require "tide.core"
local util = require "tide.util"

local M = {Module = Module, Sequential = containers.Sequential, ModuleList = containers.ModuleList,
           ModuleDict = containers.ModuleDict}

local classes = {TransformerEncoderLayer = "tide.nn.transformer"} -- loaded when first named
local modules = {functional = "tide.nn.functional", init = "tide.nn.weights", utils = "tide.nn.utils"}

--- A tensor as a parameter: a leaf that wants a gradient. Assigned to a field of a module it is trained, saved and moved.
---@param t tide.Tensor
---@return tide.Tensor t
function M.Parameter(t)
  util.expect(core.is_tensor(t), "nn.Parameter", "t", "a Tensor", t)
  if not t.is_leaf then t = t:detach() end
  Module.count_parameter(t)
  return t:requires_grad_()
end

--- Whether a Sequential runs a layer and the activation behind it (Linear and ReLU, say) as one op. It does so unless told
--- otherwise; results and gradients are equal to rounding. With `on` given, sets it.
---@param on boolean?
---@return boolean before
function M.chain(on) return require "tide.nn.layer".chain(on) end

--- Names of all layers and losses: those of plugins, loaded or not, and the containers.
---@return string[]
function M.names()
  local names = {"Module", "ModuleDict", "ModuleList", "Parameter", "Sequential", "TransformerEncoderLayer"}
  for _, kind in ipairs {"layer", "loss"} do
    for _, name in ipairs(core.layers(kind)) do names[#names + 1] = name end
  end
  table.sort(names)
  return names
end

return setmetatable(M, {__index = function(_, key)
  local value
  if modules[key] then
    value = require(modules[key])
  elseif classes[key] then
    value = require(classes[key])[key]
  elseif type(key) == "string" then
    local info = core.layer_info(key)
    if not info then
      util.fail("nn: there is no layer, loss or function '%s'%s", key, util.suggestion(key, M.names()))
    end
    value = require "tide.nn.layer".class(info)
  end
  rawset(M, key, value)
  return value
end})
