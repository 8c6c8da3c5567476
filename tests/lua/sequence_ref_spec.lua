-- Recurrent networks and attention against values that PyTorch computed (tests/ref/sequence.lua, made by make_sequence.py).
local tide = require "tide"

local T = function(t) return t end
local cases = assert(loadfile("tests/ref/sequence.lua", "t"))(T)

local function tensor(t, dtype)
  local x = tide.tensor(t.data, {dtype = t.dtype}):reshape(t.shape)
  return t.dtype == "f64" and x:to(dtype) or x
end

local function check(expected, got, tolerance, what)
  local want = tensor(expected, "f64")
  assert(got:shape() == want:shape(), ("%s: expected shape %s, got %s"):format(what, want:shape(), got:shape()))
  assert(want:allclose(got:detach():to "f64", {rtol = tolerance, atol = tolerance}),
    ("%s: expected %s, got %s"):format(what, tostring(want), tostring(got)))
end

local function module_of(case, dtype)
  local m = tide.nn[case.name](case.options):to(dtype)
  local state = {}
  for name, t in pairs(case.state) do state[name] = tensor(t, dtype) end
  m:load_state_dict(state)
  return m
end

--- Runs a case: outputs, and the tensors whose gradients are known.
local function run(case, dtype)
  local inputs, wanted = {}, {}
  for i, x in ipairs(case.inputs) do
    inputs[i] = tensor(x, dtype)
    if i <= (case.leaves or case.kind == "op" and 3 or #case.inputs) then wanted[#wanted + 1] = inputs[i]:requires_grad_() end
  end
  if case.kind == "op" then
    local f, options = tide[case.name], next(case.options) and case.options
    if case.kept then return {f(inputs[1], inputs[2], inputs[3], nil, tensor(case.kept, dtype), options)}, wanted end
    return {f(inputs[1], inputs[2], inputs[3], inputs[4], options)}, wanted
  end
  local m = module_of(case, dtype)
  for _, p in ipairs(m:parameters()) do wanted[#wanted + 1] = p end
  if not case.masks then return {m(table.unpack(inputs))}, wanted end
  local attn, padding, encoder = case.masks.attn, case.masks.padding, case.masks.encoder
  if case.name == "TransformerEncoderLayer" then return {m(inputs[1], encoder and tensor(encoder, dtype))}, wanted end
  return {m(inputs[1], inputs[2], inputs[3], attn and tensor(attn, dtype), padding and tensor(padding, dtype))}, wanted
end

for _, dtype in ipairs {"f64", "f32"} do -- f64 by the definitions, f32 by the fused kernels
  local tolerance = dtype == "f64" and 1e-8 or 2e-5
  describe("in " .. dtype .. ", as PyTorch:", function()
    for _, case in ipairs(cases) do
      it(case.name .. ", " .. case.label, function()
        local outputs, wanted = run(case, dtype)
        assert.equal(#case.outputs, #outputs)
        for i, want in ipairs(case.outputs) do check(want, outputs[i], tolerance, "output " .. i) end
        local seeds = {}
        for i, s in ipairs(case.seeds) do seeds[i] = tensor(s, dtype) end
        local grads = tide.grad(outputs, wanted, {grad_outputs = seeds})
        assert.equal(#case.grads, #grads)
        for i, want in ipairs(case.grads) do check(want, grads[i], tolerance, "gradient " .. i) end
      end)
    end
  end)
end
