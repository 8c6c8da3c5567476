--- Derivatives of functions: jacobian, hessian, jvp, and gradcheck, which compares gradients with differences.
local core = require "tide.core"
local util = require "tide.util"

local M = {}

--- One tensor or a list of them, as a list.
local function list_of(who, what, x)
  if core.is_tensor(x) then return {x} end
  util.expect(type(x) == "table" and #x > 0, who, what, "a Tensor or a list of them", x)
  for i, t in ipairs(x) do util.expect(core.is_tensor(t), who, ("%s[%d]"):format(what, i), "a Tensor", t) end
  return x
end

--- A leaf with the same numbers that wants a gradient.
local function leaf(t) return t:detach():clone():requires_grad_() end

local function expect_function(who, f)
  local mt = type(f) == "table" and getmetatable(f)
  util.expect(type(f) == "function" or mt and mt.__call, who, "f", "a function", f)
end

local floats = {f32 = true, f64 = true, f16 = true, bf16 = true}

-- ---- gradcheck ----

--- The float results of a call, as a list.
local function results(who, ...)
  local list = {}
  for i = 1, select("#", ...) do
    local y = select(i, ...)
    if core.is_tensor(y) and floats[y.dtype] then list[#list + 1] = y end
  end
  if #list == 0 then util.fail("%s: f: expected a float Tensor as result, got %s", who, util.describe((...))) end
  return list
end

--- Weights for the results, which make one number of them: a wrong element of any gradient shows in it.
local function weights_for(list)
  local weights = {}
  for i, y in ipairs(list) do weights[i] = core.ops.rand(y:shape(), {dtype = "f64", device = y.device}) + 0.5 end
  return weights
end

local function weighted_sum(list, weights)
  local total
  for i, y in ipairs(list) do
    local s = (y:to "f64" * weights[i]):sum()
    total = total and total + s or s
  end
  return total
end

--- The gradient of one input by central differences:  (s(x + eps) - s(x - eps)) / (2 eps), element by element.
local function by_differences(s, x, eps)
  local flat = x:detach():view {-1}
  local n = flat:numel()
  local slopes = {}
  for i = 1, n do
    local one = flat:narrow(1, i, 1)
    local v = one:item()
    one:fill_(v + eps)
    local high = s()
    one:fill_(v - eps)
    local low = s()
    one:fill_(v)
    slopes[i] = (high - low) / (2 * eps)
  end
  return slopes
end

local gradcheck_defaults = {eps = 1e-6, atol = 1e-5, rtol = 1e-3, second = false}

--- Where two gradients differ, in words; nil where they agree.
local function difference(name, got, expected, o, shape)
  for i = 1, #expected do
    local g, e = got[i], expected[i]
    local near = math.abs(g - e) <= o.atol + o.rtol * math.abs(e)          -- false for a NaN
    if not near then
      local place, rest = {}, i - 1
      for k = #shape, 1, -1 do
        place[k] = rest % shape[k] + 1
        rest = rest // shape[k]
      end
      return ("gradient of %s%s: expected %.8g by differences, got %.8g"):format(name,
        #place > 0 and ("[{%s}]"):format(table.concat(place, ", ")) or "", e, g)
    end
  end
end

--- Compares the gradients of f with central differences, in f64. Random numbers that f draws are the same in all its calls.
---
---     assert(tide.gradcheck(function(x, w) return x:matmul(w) end, {x, w}))
---@param f fun(...: tide.Tensor): tide.Tensor
---@param inputs tide.Tensor|tide.Tensor[]   float ones are copied to f64, others are passed on
---@param opts table?   eps = 1e-6, atol = 1e-5, rtol = 1e-3, second = false: second derivatives too
---@return boolean ok, string? message
function M.gradcheck(f, inputs, opts)
  expect_function("gradcheck", f)
  local o = util.named("gradcheck", opts, gradcheck_defaults)
  local given, args, wanted, names = list_of("gradcheck", "inputs", inputs), {}, {}, {}
  for i, t in ipairs(given) do
    if floats[t.dtype] then
      args[i] = t:detach():to "f64":contiguous():clone():requires_grad_()
      wanted[#wanted + 1], names[#names + 1] = args[i], "input " .. i
    else
      args[i] = t
    end
  end
  if #wanted == 0 then util.fail "gradcheck: inputs: expected at least one float Tensor, got none" end
  local state = core.random_state()
  local function run()
    core.set_random_state(state)
    return results("gradcheck", f(table.unpack(args)))
  end
  local weights = core.no_grad(function() return weights_for(run()) end)
  local function number() return core.no_grad(function() return weighted_sum(run(), weights):item() end) end

  local total = core.enable_grad(function() return weighted_sum(run(), weights) end)
  if not total.requires_grad then return false, "the result does not depend on the inputs by differentiable ops" end
  local grads = core.grad(total, wanted, {allow_unused = true})
  for i, x in ipairs(wanted) do
    local shape = x:shape()
    if grads[i] and #grads[i]:shape() ~= #shape then
      return false, ("gradient of %s: expected shape of %s, got %s"):format(names[i], util.describe(x), util.describe(grads[i]))
    end
    local got = grads[i] and grads[i]:reshape {-1}:totable() or {}
    if not grads[i] then for k = 1, x:numel() do got[k] = 0 end end
    local wrong = difference(names[i], got, by_differences(number, x, o.eps), o, shape)
    if wrong then
      core.set_random_state(state)
      return false, wrong
    end
  end
  if o.second then return M.gradcheck_second(run, wanted, weights, o) end
  return true
end

--- The same for the gradients themselves. Differences of first derivatives are as exact as those were.
function M.gradcheck_second(run, wanted, weights, o)
  local function gradients(create)
    return core.enable_grad(function()
      local total = weighted_sum(run(), weights)
      local list, grads = {}, core.grad(total, wanted, {create_graph = create, allow_unused = true})
      for i in ipairs(wanted) do if grads[i] then list[#list + 1] = grads[i] end end
      return list
    end)
  end
  local first = gradients(true)
  if #first == 0 then return true end
  local second_weights = weights_for(first)
  local function number() return core.no_grad(function() return weighted_sum(gradients(false), second_weights):item() end) end
  local total = weighted_sum(first, second_weights)
  local grads = total.requires_grad and core.grad(total, wanted, {allow_unused = true}) or {}
  for i, x in ipairs(wanted) do
    local got = {}
    if grads[i] then got = grads[i]:reshape {-1}:totable() else for k = 1, x:numel() do got[k] = 0 end end
    local wrong = difference(("the gradient for input %d"):format(i), got, by_differences(number, x, o.eps), o, x:shape())
    if wrong then return false, "second " .. wrong end
  end
  return true
end

-- ---- jacobian, hessian, jvp ----

local function joined(a, b)
  local shape = {}
  for _, n in ipairs(a:shape()) do shape[#shape + 1] = n end
  for _, n in ipairs(b:shape()) do shape[#shape + 1] = n end
  return shape
end

--- Rows of gradients of each element of y for x.
local function rows_of(y, x, create)
  local n = y:numel()
  local flat = y:reshape {-1}
  local rows = {}
  for i = 1, n do
    local g = flat.requires_grad and core.grad(flat[i], x, {retain_graph = true, create_graph = create, allow_unused = true})
    rows[i] = g or core.ops.zeros(x:shape(), {dtype = x.dtype, device = x.device})
  end
  local shape = joined(y, x)
  if n == 0 then return core.ops.zeros(shape, {dtype = x.dtype, device = x.device}) end
  return core.ops.stack(rows):reshape(shape)
end

--- All derivatives of y = f(x): J[i…][j…] = dy[i…] / dx[j…].
---@param f fun(x: tide.Tensor): tide.Tensor
---@param x tide.Tensor
---@param opts table?   create_graph = false: the result can be differentiated again
---@return tide.Tensor   shape of y followed by that of x
function M.jacobian(f, x, opts)
  expect_function("jacobian", f)
  util.expect(core.is_tensor(x), "jacobian", "x", "a Tensor", x)
  local o = util.named("jacobian", opts, {create_graph = false})
  return core.enable_grad(function()
    local at = o.create_graph and x.requires_grad and x or leaf(x)
    return rows_of(results("jacobian", f(at))[1], at, o.create_graph)
  end)
end

--- All second derivatives of a number f(x): H[i…][j…] = d2 f / dx[i…] dx[j…].
---@param f fun(x: tide.Tensor): tide.Tensor   one element
---@param x tide.Tensor
---@return tide.Tensor   shape of x twice
function M.hessian(f, x)
  expect_function("hessian", f)
  util.expect(core.is_tensor(x), "hessian", "x", "a Tensor", x)
  return core.enable_grad(function()
    local at = leaf(x)
    local y = results("hessian", f(at))[1]
    if y:numel() ~= 1 then util.fail("hessian: f: expected one number as result, got %s", util.describe(y)) end
    local g = y.requires_grad and core.grad(y:reshape {}, at, {create_graph = true, allow_unused = true})
              or core.ops.zeros(x:shape(), {dtype = x.dtype, device = x.device})
    return rows_of(g, at, false)
  end)
end

--- The change of f(x) in direction v:  J v. By differentiating twice, so every op will do.
---@param f fun(...: tide.Tensor): tide.Tensor
---@param x tide.Tensor|tide.Tensor[]
---@param v tide.Tensor|tide.Tensor[]   a direction for each input, of its shape
---@return tide.Tensor y, tide.Tensor jv
function M.jvp(f, x, v)
  expect_function("jvp", f)
  local xs, vs = list_of("jvp", "x", x), list_of("jvp", "v", v)
  if #xs ~= #vs then util.fail("jvp: expected %d directions, got %d", #xs, #vs) end
  return core.enable_grad(function()
    local at = {}
    for i, t in ipairs(xs) do at[i] = leaf(t) end
    local y = results("jvp", f(table.unpack(at)))[1]
    local nothing = core.ops.zeros(y:shape(), {dtype = y.dtype, device = y.device})
    if not y.requires_grad then return y, nothing end
    local u = nothing:clone():requires_grad_()
    local grads = core.grad({y}, at, {grad_outputs = {u}, create_graph = true, allow_unused = true})
    local outputs, seeds = {}, {}
    for i in ipairs(at) do
      if grads[i] and grads[i].requires_grad then outputs[#outputs + 1], seeds[#seeds + 1] = grads[i], vs[i]:detach() end
    end
    if #outputs == 0 then return y:detach(), nothing end
    local jv = core.grad(outputs, {u}, {grad_outputs = seeds, allow_unused = true})[1]
    return y:detach(), jv or nothing
  end)
end

return M
