--- Conformance of one layer or loss, on each of its samples, as its plugin gives them.
local core = require "tide.core"
local grad = require "tide.grad"
local tools = require "tide.check.tools"

local MAX_SAMPLES = 64
local SEED = 20171

--- A module from a sample's options, with its parameters drawn from a fixed seed.
local function make(name, options)
  core.manual_seed(SEED)
  return core.new_module(name, options)
end

local function run(module, inputs)
  core.manual_seed(SEED)
  return table.pack(tools.call(function(...) return module(...) end, inputs))
end

--- Float inputs and parameters of a module in f64, and the module as a function of them.
local function as_function(info, module, inputs)
  local wanted, names = {}, {}
  core.no_grad(function()
    for _, t in ipairs(module:tensors()) do
      if tools.floats[t.tensor.dtype] then core.set_data(t.tensor, t.tensor:detach():to "f64") end
    end
  end)
  tools.map(inputs, function(t, i)
    if tools.floats[t.dtype] and not info.inputs[i].mask then wanted[#wanted + 1] = t end
    return t
  end)
  local n_inputs = #wanted
  for _, t in ipairs(module:tensors()) do
    if not t.is_buffer then
      wanted[#wanted + 1] = t.tensor
      names[#names + 1] = t.name
    end
  end
  return function(...)
    local given, k = {...}, 0
    for i, name in ipairs(names) do module:set_tensor(name, given[n_inputs + i]) end
    local now = tools.map(inputs, function(t, i)
      if not tools.floats[t.dtype] or info.inputs[i].mask then return t end
      k = k + 1
      return given[k]
    end)
    local results = run(module, now)
    return table.unpack(results, 1, results.n)
  end, wanted
end

local function check_gradients(report, label, info, options, inputs, training)
  local module = make(info.name, options)
  module:train(training)
  local g, wanted = as_function(info, module, inputs)
  if #wanted == 0 then return end
  report:test(label, "gradients", function() return grad.gradcheck(g, wanted) end)
  report:test(label, "second gradients", function()
    local ok, message = grad.gradcheck(g, wanted, {second = true, atol = 1e-4})
    return ok, message
  end)
end

local function check_sample(report, label, info, options, inputs)
  for _, training in ipairs {true, false} do
    local mode = training and ", training" or ", evaluation"
    local module = make(info.name, options)
    module:train(training)
    local ran = report:test(label .. mode, "it runs", function()
      run(module, inputs)
      return true
    end)
    if ran then
      report:test(label .. mode, "strided inputs", function()
        return tools.agree(run(module, inputs), run(module, tools.map(inputs, tools.strided)), 1e-4, 1e-5)
      end)
      report:test(label .. mode, "kernels and definitions agree", function()
        local expected = run(module, inputs)
        local before = core.decompose(true)
        local ok, got = pcall(run, module, inputs)
        core.decompose(before)
        if not ok then error(got, 0) end
        return tools.agree(got, expected, 1e-3, 1e-4)
      end)
      check_gradients(report, label .. mode, info, options, inputs, training)
      report:test(label .. mode, "inputs without elements", function()
        return tools.fine_or_clear(info.name, function() return run(module, tools.map(inputs, tools.emptied)) end)
      end)
    end
  end
  report:test(label, "options can be given again", function()
    local module = make(info.name, options)
    local again = core.new_module(info.name, module:options())
    return #again:tensors() == #module:tensors(), "another number of tensors"
  end)
  report:test(label, "an input of too many axes or none", function()
    local module = make(info.name, options)
    local odd = tools.map(inputs, function(t) return t:reshape {1, 1, 1, 1, 1, -1} end)
    return tools.fine_or_clear(info.name, function() return run(module, odd) end)
  end)
end

--- Checks one layer or loss.
---@param name string
---@return tide.check.Report
return function(name)
  local report, info = tools.report(), core.layer_info(name)
  local subject = info.kind .. " " .. name
  report.subjects[1] = subject
  local n = 0
  for i = 1, MAX_SAMPLES do
    core.manual_seed(SEED + i)
    local inputs, options = core.layer_sample(name, i)
    if not inputs then break end
    n = i
    inputs.n = #info.inputs
    check_sample(report, ("%s, sample %d"):format(subject, i), info, options, inputs)
    if i == 1 then
      report:test(subject, "a missing input", function()
        return tools.refused(name, function() return make(name, options)() end)
      end)
      report:test(subject, "a text as input", function()
        return tools.refused(name, function() return make(name, options)("text") end)
      end)
    end
  end
  report:test(subject, "two samples", function() return n >= 2, ("it has %d"):format(n) end)
  report:test(subject, "doc", function() return (info.doc or "") ~= "", "it has none" end)
  report:test(subject, "docs of options", function()
    for _, o in ipairs(info.options) do if (o.doc or "") == "" then return false, o.name .. " has none" end end
    return true
  end)
  report:test(subject, "an unknown option", function()
    return tools.refused(name, function() return core.new_module(name, {no_such_option = 1}) end)
  end)
  return report
end
