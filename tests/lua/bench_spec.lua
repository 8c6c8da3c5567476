--- The Tide half of scripts/bench runs: every workload for some steps, eager and captured. No times are looked at.
local tide = require "tide"
package.path = "scripts/bench/?.lua;" .. package.path
local nets = require "nets"
local workloads = require "workloads"

--- The first n losses of a workload.
local function losses(make, n, wrap)
  nets.restart()
  tide.manual_seed(1)
  local w = make()
  local step, list = wrap and wrap(w.step) or w.step, {}
  for i = 1, n do
    local loss = step()
    list[i] = (w.value and w.value() or loss):item()
  end
  return list
end

--- Calls f(name, make) for every workload, in order of names.
local function each(f)
  local names = {}
  for name in pairs(workloads) do names[#names + 1] = name end
  table.sort(names)
  for _, name in ipairs(names) do f(name, workloads[name]) end
end

local function there(name)
  if name == "char_lstm" then return (pcall(function() return tide.nn.LSTM end)) end
  if name == "gpt" then return tide.scaled_dot_product_attention ~= nil end
  return true
end

describe("the benchmark", function()
  each(function(name, make)
    it(name .. " gives finite losses that fall", function()
      if not there(name) then return pending "its layers are not there" end
      local l = losses(make, 6)
      for _, v in ipairs(l) do assert.is_true(v == v and math.abs(v) < 1e6) end
      if name:match "^conv" or name:match "^matmul" or name:match "^add" and not name:match "adam" then
        assert.equal(l[1], l[6])                         -- no training step
      else
        assert.is_true(l[6] < l[1], name .. " does not train")
      end
    end)
  end)

  for _, name in ipairs {"xor", "mlp_adam", "lenet", "resnet20", "char_lstm", "gpt", "adam_50"} do
    it(name .. " captured gives the same losses", function()
      if not tide.capture or not there(name) then return pending "no tide.capture, or not its layers" end
      local eager, captured = losses(workloads[name], 6), losses(workloads[name], 6, tide.capture)
      for i, v in ipairs(eager) do assert.near(v, captured[i], 1e-4) end
    end)
  end
end)
