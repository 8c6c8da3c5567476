--- nn.init: fills a parameter in place, without recording. Each function returns the tensor.
---
--- fan_in counts the inputs of one output, fan_out the outputs of one input: for a weight (out, in, ...) they are in and out
--- times the extents of the kernel.
---@class tide.nn.init
local core = require "tide.core"
local util = require "tide.util"

local M = {}

local function check(who, t) util.expect(core.is_tensor(t), "nn.init." .. who, "t", "a Tensor", t) end

local function uniform(t, low, high)
  core.no_grad(t.uniform_, t, low, high)
  return t
end

local function normal(t, mean, std)
  core.no_grad(t.normal_, t, mean, std)
  return t
end

--- Uniform in low..high.
---@param t tide.Tensor
---@param low number?    0
---@param high number?   1
---@return tide.Tensor t
function M.uniform(t, low, high)
  check("uniform", t)
  return uniform(t, low or 0, high or 1)
end

--- Normal.
---@param t tide.Tensor
---@param mean number?   0
---@param std number?    1
---@return tide.Tensor t
function M.normal(t, mean, std)
  check("normal", t)
  return normal(t, mean or 0, std or 1)
end

--- One value everywhere.
---@param t tide.Tensor
---@param value number
---@return tide.Tensor t
function M.constant(t, value)
  check("constant", t)
  core.no_grad(t.fill_, t, util.number("nn.init.constant", "value", value))
  return t
end

--- Zeros.
---@param t tide.Tensor
---@return tide.Tensor t
function M.zeros(t) return M.constant(t, 0) end

--- Ones.
---@param t tide.Tensor
---@return tide.Tensor t
function M.ones(t) return M.constant(t, 1) end

--- Inputs of one output and outputs of one input, for a weight (out, in, ...).
---@param t tide.Tensor
---@return integer fan_in, integer fan_out
function M.fans(t)
  check("fans", t)
  local shape = t:shape()
  if #shape < 2 then util.fail("nn.init: expected a weight (out, in, ...), got %s", util.describe(t)) end
  local field = 1
  for i = 3, #shape do field = field * shape[i] end
  return shape[2] * field, shape[1] * field
end

local gains = {linear = 1, sigmoid = 1, tanh = 5 / 3, relu = math.sqrt(2), selu = 3 / 4}

--- How much an activation shrinks its input: linear 1, tanh 5/3, relu sqrt(2), leaky_relu sqrt(2 / (1 + a^2)).
---@param activation string
---@param a number?   slope of leaky_relu, 0.01
---@return number
function M.gain(activation, a)
  if activation == "leaky_relu" then return math.sqrt(2 / (1 + (a or 0.01) ^ 2)) end
  if not gains[activation] then
    util.fail("nn.init.gain: expected linear, sigmoid, tanh, relu, leaky_relu or selu, got %s", util.describe(activation))
  end
  return gains[activation]
end

--- Uniform in +-gain sqrt(6 / (fan_in + fan_out))  (Glorot & Bengio 2010).
---@param t tide.Tensor
---@param gain number?   1
---@return tide.Tensor t
function M.xavier_uniform(t, gain)
  local fan_in, fan_out = M.fans(t)
  local bound = (gain or 1) * math.sqrt(6 / (fan_in + fan_out))
  return uniform(t, -bound, bound)
end

--- Normal with std gain sqrt(2 / (fan_in + fan_out))  (Glorot & Bengio 2010).
---@param t tide.Tensor
---@param gain number?   1
---@return tide.Tensor t
function M.xavier_normal(t, gain)
  local fan_in, fan_out = M.fans(t)
  return normal(t, 0, (gain or 1) * math.sqrt(2 / (fan_in + fan_out)))
end

--- std of He's initialisation by its options.
local function he(who, t, opts)
  local o = util.named("nn.init." .. who, opts, {a = 0, mode = "fan_in", nonlinearity = "leaky_relu"})
  local fan_in, fan_out = M.fans(t)
  if o.mode ~= "fan_in" and o.mode ~= "fan_out" then
    util.fail("nn.init.%s: mode: expected fan_in or fan_out, got %s", who, util.describe(o.mode))
  end
  return M.gain(o.nonlinearity, o.a) / math.sqrt(o.mode == "fan_in" and fan_in or fan_out)
end

--- Uniform in +-gain sqrt(3 / fan)  (He et al. 2015). Linear and Conv2d start with a = sqrt(5).
---@param t tide.Tensor
---@param opts table?   a = 0, mode = "fan_in" or "fan_out", nonlinearity = "leaky_relu"
---@return tide.Tensor t
function M.kaiming_uniform(t, opts)
  local bound = math.sqrt(3) * he("kaiming_uniform", t, opts)
  return uniform(t, -bound, bound)
end

--- Normal with std gain / sqrt(fan)  (He et al. 2015).
---@param t tide.Tensor
---@param opts table?   a = 0, mode = "fan_in" or "fan_out", nonlinearity = "leaky_relu"
---@return tide.Tensor t
function M.kaiming_normal(t, opts) return normal(t, 0, he("kaiming_normal", t, opts)) end

--- Rows (or columns, where there are fewer) that are orthogonal and of length gain, by Gram and Schmidt's process on random
--- normal numbers, twice for accuracy  (Saxe et al. 2014).
---@param t tide.Tensor   (out, in, ...), taken as a matrix (out, in ...)
---@param gain number?    1
---@return tide.Tensor t
function M.orthogonal(t, gain)
  check("orthogonal", t)
  local shape = t:shape()
  if #shape < 2 then util.fail("nn.init.orthogonal: expected a weight (out, in, ...), got %s", util.describe(t)) end
  core.no_grad(function()
    local rows = shape[1]
    local cols = rows == 0 and 0 or t:numel() // rows
    local wide = rows <= cols
    local q = core.ops.randn({wide and rows or cols, wide and cols or rows}, {dtype = "f64"})
    for i = 1, q:size(1) do
      local v = q[i]
      for _ = 1, 2 do
        if i > 1 then
          local done = q[{{1, i - 1}}]
          v = v - done:t():matmul(done:matmul(v))
        end
      end
      q[i] = v / v:norm()
    end
    t:copy_(((wide and q or q:t()) * (gain or 1)):reshape(shape))
  end)
  return t
end

for _, name in ipairs(util.keys(M)) do
  if name ~= "gain" and name ~= "fans" then M[name .. "_"] = M[name] end   -- PyTorch's spelling
end

return M
