--- Gradient clipping and other small tools for parameters.
---@class tide.nn.utils
local core = require "tide.core"
local util = require "tide.util"

local M = {}

--- Gradients of a list of parameters, or of one tensor, that have one.
local function gradients(who, params)
  if core.is_tensor(params) then params = {params} end
  util.expect(type(params) == "table", "nn.utils." .. who, "params", "a list of parameters", params)
  local list = {}
  for i, p in ipairs(params) do
    util.expect(core.is_tensor(p), "nn.utils." .. who, ("params[%d]"):format(i), "a Tensor", p)
    local g = p.grad
    if g then list[#list + 1] = g end
  end
  return list
end

--- Scales all gradients down together so that their norm is at most max_norm (Pascanu et al. 2013).
---@param params tide.Tensor[]   as net:parameters() gives them
---@param max_norm number
---@param p number?              order of the norm, 2; math.huge: the greatest element
---@return tide.Tensor norm      before the clipping, not read from the device
function M.clip_grad_norm_(params, max_norm, p)
  util.expect(type(max_norm) == "number" and max_norm >= 0, "nn.utils.clip_grad_norm_", "max_norm", "a number >= 0", max_norm)
  p = p or 2
  local grads = gradients("clip_grad_norm_", params)
  return core.no_grad(function()
    if #grads == 0 then return core.tensor(0.0) end
    local norms = {}
    for i, g in ipairs(grads) do norms[i] = g:norm(p) end
    local total = core.ops.stack(norms):norm(p)
    local factor = (max_norm / (total + 1e-6)):clamp {max = 1}
    for _, g in ipairs(grads) do g:mul_(factor) end
    return total
  end)
end

--- Cuts every gradient element to -value .. value.
---@param params tide.Tensor[]
---@param value number
function M.clip_grad_value_(params, value)
  util.expect(type(value) == "number" and value >= 0, "nn.utils.clip_grad_value_", "value", "a number >= 0", value)
  local grads = gradients("clip_grad_value_", params)
  core.no_grad(function()
    for _, g in ipairs(grads) do g:clamp_(-value, value) end
  end)
end

--- All parameters in one vector, in their order.
---@param params tide.Tensor[]
---@return tide.Tensor (n)
function M.parameters_to_vector(params)
  local flat = {}
  for i, p in ipairs(params) do flat[i] = p:reshape {-1} end
  return core.ops.cat(flat)
end

--- The vector's numbers back into the parameters.
---@param vector tide.Tensor
---@param params tide.Tensor[]
function M.vector_to_parameters(vector, params)
  local n = 0
  for _, p in ipairs(params) do n = n + p:numel() end
  if vector:numel() ~= n then
    util.fail("vector_to_parameters: expected %d numbers, got %s", n, util.describe(vector))
  end
  core.no_grad(function()
    local from = 1
    for _, p in ipairs(params) do
      p:copy_(vector:narrow(1, from, p:numel()):reshape(p:shape()))
      from = from + p:numel()
    end
  end)
end

return M
