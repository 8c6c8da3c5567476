--- Conformance of one op, on each of its samples.
local core = require "tide.core"
local grad = require "tide.grad"
local tools = require "tide.check.tools"

local MAX_SAMPLES = 64
local SEED = 20171

--- The function of an op, built in or a plugin's.
local function function_of(name) return core.ops[name] or core.op(name) end

--- Runs with the random stream at its start, so that two runs draw the same.
local function seeded(f)
  return function(...)
    core.manual_seed(SEED)
    return f(...)
  end
end

--- Places of inputs that may carry a gradient: no indices, masks, scalars, and none that is written.
local function differentiable_places(info)
  local places = {}
  for i, p in ipairs(info.inputs) do
    places[i] = not (p.index or p.mask or p.scalar or p.written)
  end
  return places
end

local function has_written(info)
  for _, p in ipairs(info.inputs) do if p.written then return true end end
  return false
end

--- f as a function of its float inputs alone, and those.
local function as_function(f, info, inputs, options)
  local places, wanted = differentiable_places(info), {}
  tools.map(inputs, function(t, i)
    if places[i] and tools.floats[t.dtype] then wanted[#wanted + 1] = t end
    return t
  end)
  local function g(...)
    local given, k = {...}, 0
    local now = tools.map(inputs, function(t, i)
      if not (places[i] and tools.floats[t.dtype]) then return t end
      k = k + 1
      return given[k]
    end)
    local results = table.pack(tools.call(f, now, options))
    if type(results[1]) == "table" and not core.is_tensor(results[1]) then results = table.pack(table.unpack(results[1])) end
    return table.unpack(results, 1, results.n)
  end
  return g, wanted
end

--- Whether a gradient reaches the results at all, and they are f64, so that differences are exact enough.
local function records(g, wanted)
  local leaves = {}
  for i, t in ipairs(wanted) do leaves[i] = t:detach():to "f64":clone():requires_grad_() end
  local results, reached = table.pack(g(table.unpack(leaves))), false
  for i = 1, results.n do
    local y = results[i]
    if core.is_tensor(y) and tools.floats[y.dtype] then
      if y.dtype ~= "f64" then return false end
      reached = reached or y.requires_grad
    end
  end
  return reached
end

local function check_gradients(report, label, f, info, traits, inputs, options)
  if not traits.differentiable or has_written(info) or info.doc:find "No gradient" then return end
  local g, wanted = as_function(seeded(f), info, inputs, options)
  if #wanted == 0 or not records(g, wanted) then return end
  report:test(label, "gradients", function() return grad.gradcheck(g, wanted) end)
  if traits.twice then
    report:test(label, "second gradients", function() return grad.gradcheck(g, wanted, {second = true, atol = 1e-4}) end)
    return
  end
  report:test(label, "a second gradient is refused", function()
    return tools.refused(info.name, function() return grad.gradcheck(g, wanted, {second = true}) end)
  end)
end

local function check_strided(report, label, f, info, inputs, options)
  if has_written(info) then return end
  local run = seeded(f)
  report:test(label, "strided inputs", function()
    local expected = table.pack(tools.call(run, inputs, options))
    local ok, got = pcall(function() return table.pack(tools.call(run, tools.map(inputs, tools.strided), options)) end)
    if not ok then
      if info.name == "view" then return tools.clear("view", got) end   -- the one op that may say no to strides
      error(got, 0)
    end
    if info.name == "empty" then return true end
    return tools.agree(expected, got, 1e-4, 1e-5)
  end)
end

local function check_decompose(report, label, f, info, traits, inputs, options)
  if not traits.decomposes or has_written(info) then return end
  local run = seeded(f)
  report:test(label, "kernel and definition agree", function()
    local expected = table.pack(tools.call(run, inputs, options))
    local before = core.decompose(true)
    local ok, got = pcall(function() return table.pack(tools.call(run, inputs, options)) end)
    core.decompose(before)
    if not ok then error(got, 0) end
    return tools.agree(got, expected, 1e-3, 1e-4)
  end)
end

local function check_empty(report, label, f, info, inputs, options)
  if inputs.n == 0 or has_written(info) then return end
  report:test(label, "inputs without elements", function()
    return tools.fine_or_clear(info.name, function() return tools.call(f, tools.map(inputs, tools.emptied), options) end)
  end)
  report:test(label, "a first input without elements", function()
    return tools.fine_or_clear(info.name, function()
      return tools.call(f, tools.map(inputs, function(t, i) return i == 1 and tools.emptied(t) or t end), options)
    end)
  end)
end

local function check_wrong(report, name, f, info)
  local required = 0
  for _, p in ipairs(info.inputs) do if not p.optional then required = required + 1 end end
  if required > 0 then
    report:test(name, "a missing input", function() return tools.refused(name, function() return f() end) end)
    report:test(name, "a text as input", function() return tools.refused(name, function() return f("text") end) end)
  end
  report:test(name, "an unknown option", function()
    return tools.refused(name, function()
      local x = core.ops.ones({2, 2})
      if required == 0 then return f {no_such_option = 1} end
      local args = {}
      for i, p in ipairs(info.inputs) do args[i] = p.list and {x} or x end
      args[#info.inputs + 1] = {no_such_option = 1}
      return f(table.unpack(args, 1, #info.inputs + 1))
    end)
  end)
end

--- Checks one op.
---@param name string
---@return tide.check.Report
return function(name)
  local report = tools.report()
  report.subjects[1] = "op " .. name
  local info, traits, f = core.op_info(name), core.op_traits(name), function_of(name)
  if not info then
    report:test("op " .. name, "it is there", function() return false, "no plugin that is found provides it" end)
    return report
  end
  local n = 0
  for i = 1, MAX_SAMPLES do
    core.manual_seed(SEED + i)
    local inputs, options = core.op_sample(name, i)
    if not inputs then break end
    n = i
    inputs.n = #info.inputs
    local label = ("op %s, sample %d"):format(name, i)
    if not traits.optional then
      if report:test(label, "it runs", function() tools.call(f, inputs, options) return true end) then
        check_strided(report, label, f, info, inputs, options)
        check_decompose(report, label, f, info, traits, inputs, options)
        check_gradients(report, label, f, info, traits, inputs, options)
        check_empty(report, label, f, info, inputs, options)
      end
    end
  end
  report:test("op " .. name, "samples", function() return n > 0 or traits.optional, "it has none" end)
  report:test("op " .. name, "doc", function() return (info.doc or "") ~= "", "it has none" end)
  check_wrong(report, name, f, info)
  return report
end
