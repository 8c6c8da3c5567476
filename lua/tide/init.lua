--- Tide: neural networks from Lua.
---
---     local tide = require "tide"
---     local x = tide.randn(64, 784)
---
--- Every op is a function here and a method of tensors: tide.matmul(a, b) is a:matmul(b). tide.help "name" explains any of them.
---@class tide
---@field nn tide.nn
---@field optim tide.optim
---@field data tide.data
---@field metrics tide.metrics
---@field logger tide.logger
local core = require "tide.core"
local util = require "tide.util"

local M = {version = core.version, Tensor = core.Tensor, newaxis = core.newaxis}

for _, name in ipairs {
  "tensor", "from_string", "is_tensor", "no_grad", "enable_grad", "set_grad_enabled", "is_grad_enabled", "grad", "set_anomaly",
  "manual_seed", "random", "random_state", "set_random_state", "devices", "default_device", "set_default_device", "synchronize",
  "memory", "reset_peak_memory", "empty_cache", "set_num_threads", "capture", "get_num_threads", "plugins", "plugin_dirs", "plugin", "time",
} do M[name] = core[name] end

local modules = {
  nn = "tide.nn", optim = "tide.optim", data = "tide.data", metrics = "tide.metrics", progress = "tide.progress",
  logger = "tide.logger", train = "tide.train", plot = "tide.plot", json = "tide.io.json", check = "tide.check",
}

--- Functions that live in a module of their own, loaded when they are first named.
local functions = {
  options = "tide.options", gradcheck = "tide.grad", jacobian = "tide.grad", hessian = "tide.grad", jvp = "tide.grad",
  profile = "tide.profile", save = "tide.io.safetensors", load = "tide.io.safetensors", help = "tide.help",
}

--- A tensor like x by an op that needs only a shape.
local function like(op)
  return function(x, opts)
    util.expect(core.is_tensor(x), op .. "_like", "x", "a Tensor", x)
    local o = {dtype = x.dtype, device = x.device}
    for k, v in pairs(opts or {}) do o[k] = v end
    return core.ops[op](x:shape(), o)
  end
end

--- Zeros in the shape, dtype and device of x.
M.zeros_like = like "zeros"
--- Ones in the shape, dtype and device of x.
M.ones_like = like "ones"
--- Uniform numbers in [0, 1) in the shape, dtype and device of x.
M.rand_like = like "rand"
--- Standard normal numbers in the shape, dtype and device of x.
M.randn_like = like "randn"
--- Undefined numbers in the shape, dtype and device of x.
M.empty_like = like "empty"

--- One value in the shape, dtype and device of x.
---@param x tide.Tensor
---@param value number
---@param opts table?   dtype, device, requires_grad
---@return tide.Tensor
function M.full_like(x, value, opts)
  util.expect(core.is_tensor(x), "full_like", "x", "a Tensor", x)
  local o = {dtype = x.dtype, device = x.device}
  for k, v in pairs(opts or {}) do o[k] = v end
  return core.ops.full(x:shape(), value, o)
end

--- Images (N, C, H, W) with the channels of a pixel side by side in memory; axes and values stay as they are. Convolutions, batch
--- norm and element-wise ops keep that order in their results, so it is enough to give a network its input so. Differentiable.
---@param x tide.Tensor   four axes
---@return tide.Tensor
function M.channels_last(x)
  util.expect(core.is_tensor(x), "channels_last", "x", "a Tensor", x)
  if #x:shape() ~= 4 then error(("channels_last: x: expected axes (N, C, H, W), got shape %s"):format(x:shape()), 2) end
  return x:permute(1, 3, 4, 2):contiguous():permute(1, 4, 2, 3)
end

--- Names of everything that is here, for completion.
---@return string[]
function M.names()
  local names = util.keys(core.ops)
  for name in pairs(modules) do names[#names + 1] = name end
  for name in pairs(functions) do names[#names + 1] = name end
  table.sort(names)
  return names
end

return setmetatable(M, {__index = function(_, key)
  local value
  if modules[key] then
    value = require(modules[key])
  elseif functions[key] then
    local module = require(functions[key])
    value = key == "help" and module.help or module[key]
  elseif type(key) == "string" then
    value = core.ops[key] or core.op(key)
  end
  if value ~= nil then rawset(M, key, value) end
  return value
end})
