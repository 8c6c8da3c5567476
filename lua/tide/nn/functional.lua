--- Layers and losses as plain functions: F.relu(x), F.conv2d(x, w, b, {padding = 2}), F.cross_entropy(x, target).
---
--- Every op is here under its own name; what follows are losses, and functions whose names or defaults differ from their op's.
---@class tide.nn.functional
local core = require "tide.core"
local util = require "tide.util"

local M = {}

local KEPT = 64                                          -- losses that are kept: one for each set of options
local kept, n_kept = {}, 0

--- The options as one string; nil where a value is a table, which is not kept.
local function key_of(name, opts)
  local parts = {name}
  for _, k in ipairs(util.keys(opts)) do
    if type(opts[k]) == "table" then return nil end
    parts[#parts + 1] = k .. "=" .. tostring(opts[k])
  end
  return table.concat(parts, "|")
end

--- A loss without parameters, made once for each set of options.
local function loss_of(name, opts)
  if not opts or next(opts) == nil then
    local loss = kept[name]
    if not loss then
      loss = core.new_module(name)
      kept[name] = loss
    end
    return loss
  end
  local key = key_of(name, opts)
  local loss = key and kept[key]
  if loss then return loss end
  loss = core.new_module(name, opts)
  if key then
    if n_kept >= KEPT then kept, n_kept = {}, 0 end
    kept[key], n_kept = loss, n_kept + 1
  end
  return loss
end

--- f(x, target, opts) of a loss; opts.weight may be a tensor where the loss has such an input.
local function loss(name, weighted)
  return function(x, target, opts)
    util.expect(opts == nil or type(opts) == "table", name, "options", "a table", opts)
    local weight = weighted and opts and core.is_tensor(opts.weight) and opts.weight or nil
    if weight then
      local rest = {}
      for k, v in pairs(opts) do if k ~= "weight" then rest[k] = v end end
      opts = rest
    end
    if weight then return loss_of(name, opts)(x, target, weight) end
    return loss_of(name, opts)(x, target)
  end
end

--- Cross-entropy of scores x (N, C, ...) and class indices: see nn.CrossEntropyLoss.
M.cross_entropy = loss("CrossEntropyLoss", true)
--- Negative log likelihood of log probabilities: see nn.NLLLoss.
M.nll_loss = loss("NLLLoss", true)
--- Binary cross-entropy of probabilities: see nn.BCELoss.
M.binary_cross_entropy = loss("BCELoss", true)
--- Binary cross-entropy of scores: see nn.BCEWithLogitsLoss.
M.binary_cross_entropy_with_logits = loss("BCEWithLogitsLoss", true)
--- Squared differences: see nn.MSELoss.
M.mse_loss = loss "MSELoss"
--- Absolute differences: see nn.L1Loss.
M.l1_loss = loss "L1Loss"
--- Squares near 0, absolute differences beyond: see nn.SmoothL1Loss.
M.smooth_l1_loss = loss "SmoothL1Loss"
--- Squares near 0, absolute differences beyond: see nn.HuberLoss.
M.huber_loss = loss "HuberLoss"

--- Zeroes elements with probability p and scales the others, where `training` (the default).
---@param x tide.Tensor
---@param p number?           0.5
---@param training boolean?   true
---@return tide.Tensor
function M.dropout(x, p, training)
  if training == false or p == 0 then return x end
  return core.ops.dropout(x, p or 0.5)
end

--- Axis 2 and all after it become one.
---@param x tide.Tensor   (N, ...)
---@return tide.Tensor    (N, D)
function M.flatten(x) return core.ops.flatten(x, 2, -1) end

--- Rows divided by their p-norm, which is taken to be at least eps.
---@param x tide.Tensor
---@param opts table?   p = 2, axis = 2, eps = 1e-12
---@return tide.Tensor
function M.normalize(x, opts)
  local o = util.named("normalize", opts, {p = 2, axis = 2, eps = 1e-12})
  return x / x:norm {p = o.p, axes = o.axis, keepdim = true}:clamp {min = o.eps}
end

--- Batch normalisation: with statistics given, their evaluation form, else the training form.
---@param x tide.Tensor   (N, C, ...)
---@param opts table?     mean, var, weight, bias (tensors, C each), eps = 1e-5
---@return tide.Tensor
function M.batch_norm(x, opts)
  local o = opts or {}
  local named = {eps = o.eps or 1e-5}
  if o.mean or o.var then return core.ops.batch_norm_infer(x, o.mean, o.var, o.weight, o.bias, named) end
  return core.ops.batch_norm(x, o.weight, o.bias, named)
end

--- Attention, softmax(scale q k^T) v: tide.scaled_dot_product_attention with its mask among the options, and with dropout of the
--- weights, which is drawn here: element by element, so that a seed gives the same on every backend and for any number of threads.
---
---     local y = F.attention(q, k, v, {is_causal = true, dropout = net.training and 0.1 or 0})
---@param q tide.Tensor   (..., H, T, D)
---@param k tide.Tensor   (..., H', S, D), H' dividing H
---@param v tide.Tensor   (..., H', S, E)
---@param opts {mask?: tide.Tensor, is_causal?: boolean, scale?: number, dropout?: number}?
---@return tide.Tensor y  (..., H, T, E)
function M.attention(q, k, v, opts)
  local o = util.named("attention", opts, {mask = false, is_causal = false, scale = false, dropout = 0})
  util.expect(type(o.dropout) == "number" and o.dropout >= 0 and o.dropout <= 1, "attention", "dropout", "a number from 0 to 1",
    o.dropout)
  local keep
  if o.dropout > 0 then
    local shape = {table.unpack(q:shape())}
    shape[#shape] = k:size(-2)
    keep = core.ops.random_bits(shape):ge(math.floor(o.dropout * 2 ^ 32))
  end
  return core.ops.scaled_dot_product_attention(q, k, v, o.mask or nil, keep,
    {is_causal = o.is_causal, scale = o.scale or nil, dropout = o.dropout})
end

return setmetatable(M, {__index = function(_, key)
  local op = type(key) == "string" and (core.ops[key] or core.op(key))
  if not op then
    local names = util.keys(M)
    for name in pairs(core.ops) do names[#names + 1] = name end
    util.fail("nn.functional: there is no function '%s'%s", tostring(key), util.suggestion(tostring(key), names))
  end
  rawset(M, key, op)
  return op
end})
