-- Ops, layers, losses and optimizers against values that PyTorch computed (tests/ref, made once by make_ref.py).
local tide = require "tide"

local T = function(t) return t end
local function load_ref(name)
  return assert(loadfile("tests/ref/" .. name .. ".lua", "t"))(T)
end
local function tensor(t, options)
  local dtype = t.dtype
  local flat = #t.data == 0 and tide.zeros(0, {dtype = dtype}) or tide.tensor(t.data, {dtype = dtype})
  local x = flat:reshape(t.shape)
  if options and options.requires_grad and dtype == "f64" then x:requires_grad_() end
  return x
end
local function check(expected, got, what)
  local want = tensor(expected)
  assert(got:shape() == want:shape(), ("%s: expected shape %s, got %s"):format(what, want:shape(), got:shape()))
  assert(want:to "f64":allclose(got:to "f64", {rtol = 1e-8, atol = 1e-9, equal_nan = true}),
    ("%s: expected %s, got %s"):format(what, tostring(want), tostring(got)))
end

describe("ops agree with PyTorch:", function()
  for _, case in ipairs(load_ref "ops") do
    it(case.op .. " " .. case.label, function()
      local inputs = {}
      for i, x in ipairs(case.inputs) do inputs[i] = tensor(x, {requires_grad = true}) end
      local args = {table.unpack(inputs)}
      args[#args + 1] = next(case.options) and case.options or nil
      local outputs = {tide[case.op](table.unpack(args))}
      for i, want in ipairs(case.outputs) do check(want, outputs[i], "output " .. i) end
      if not case.grads then return end
      local floats, seeds, wanted = {}, {}, {}
      for _, y in ipairs(outputs) do if y.dtype == "f64" then floats[#floats + 1] = y end end
      for i, s in ipairs(case.seeds) do seeds[i] = tensor(s) end
      for _, x in ipairs(inputs) do if x.dtype == "f64" then wanted[#wanted + 1] = x end end
      local grads = tide.grad(floats, wanted, {grad_outputs = seeds, allow_unused = true})
      for i, want in ipairs(case.grads) do
        check(want, grads[i] or tide.zeros_like(wanted[i]), "gradient " .. i)
      end
    end)
  end
end)

describe("layers and losses agree with PyTorch:", function()
  for _, case in ipairs(load_ref "modules") do
    it(case.module .. " " .. case.label, function()
      local inputs = {}
      for i, x in ipairs(case.inputs) do inputs[i] = tensor(x, {requires_grad = i == 1}) end
      local m = tide.nn[case.module](case.options):to "f64"
      local y = m(table.unpack(inputs))
      check(case.output, y, "output")
      local g = tide.grad({y}, {inputs[1]}, {grad_outputs = {tensor(case.seed)}})
      check(case.grad, g[1], "gradient")
    end)
  end
end)

describe("optimizers follow PyTorch:", function()
  for _, dtype in ipairs {"f64", "f32"} do -- f64 takes the steps of the plugin, f32 the fused kernels
    for i, case in ipairs(load_ref "optim") do
      it(("%s %d in %s"):format(case.optim, i, dtype), function()
        local p, target = tensor(case.start):to(dtype):requires_grad_(), tensor(case.target):to(dtype)
        local optimizer = tide.optim[case.optim]({p}, case.options)
        for step, want in ipairs(case.points) do
          optimizer:zero_grad();
          ((p - target) ^ 2):sum():backward()
          optimizer:step()
          assert(tensor(want):allclose(p:detach():to "f64", {rtol = dtype == "f64" and 1e-9 or 1e-5, atol = 1e-6}),
            ("step %d: expected %s, got %s"):format(step, tostring(tensor(want)), tostring(p)))
        end
      end)
    end
  end
end)
