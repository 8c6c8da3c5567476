-- Bad input is one clear error that names what was given and what was expected; the process lives on.
local tide = require "tide"
local nn = tide.nn

describe("an error", function()
  it("names the script's line", function()
    local line
    local message = fails_with(function()
      line = debug.getinfo(1, "l").currentline + 1
      return tide.ones(2, 3) + tide.ones(2, 4)
    end, "add", "(2, 3)", "(2, 4)")
    assert.truthy(message:find(("errors_spec.lua:%d:"):format(line), 1, true), message)
  end)

  it("inside nested modules names the path", function()
    local net = nn.Sequential(nn.Flatten(), nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(5, 2)))
    local line = debug.getinfo(1, "l").currentline + 1
    local message = fails_with(function() local _ = net(tide.ones(1, 4)) end, "in Sequential[2]", "[3] Linear")
    assert.truthy(message:find(("errors_spec.lua:%d:"):format(line), 1, true), message)
  end)

  it("that a script raises inside forward arrives unchanged in kind", function()
    local Bad = nn.Module:extend "Bad"
    local object = {code = 7}
    function Bad.forward() error(object) end
    local ok, got = pcall(Bad(), tide.ones(1))
    assert.is_false(ok)
    assert.equal(object, got)
  end)
end)

describe("bad input:", function()
  local x = tide.ones(2, 3)
  local cases = {
    ["shapes that do not match"] = {function() return x:matmul(tide.ones(2, 3)) end, "matmul", "(2, 3)"},
    ["an axis outside"] = {function() return x:sum(3) end, "sum", "3"},
    ["axis 0"] = {function() return x:sum(0) end, "sum", "count from 1"},
    ["an index outside"] = {function() return x[4] end, "4", "2"},
    ["no threads"] = {function() tide.set_num_threads(0) end, "set_num_threads", "1 to 4096", "got 0"},
    ["half a thread"] = {function() tide.set_num_threads(1.5) end, "set_num_threads", "got 1.5"},
    ["a number for a function"] = {function() tide.capture(3) end, "capture", "got 3"},
    ["index 0"] = {function() return x[0] end, "0"},
    ["an index tensor outside"] = {function() return x:index_select(tide.tensor({4}, {dtype = "i64"}), 2) end, "4", "1..3"},
    ["an index tensor with 0"] = {function() return x:index_select(tide.tensor({0}, {dtype = "i64"}), 2) end, "index_select", "0"},
    ["a class label outside"] = {function()
      return nn.CrossEntropyLoss()(x, tide.tensor({1, 4}, {dtype = "i64"}))
    end, "4", "1..3"},
    ["labels that are no integers"] = {function() return nn.CrossEntropyLoss()(x, tide.ones(2)) end, "integers"},
    ["an unknown dtype"] = {function() return x:to "f33" end, "f33"},
    ["an unknown device"] = {function() return x:to "tpu" end, "tpu"},
    ["an unknown layer"] = {function() return nn.Liner(2, 3) end, "Liner", "Linear"},
    ["an unknown option"] = {function() return nn.Linear {2, 3, bais = true} end, "bais", "bias"},
    ["a missing option"] = {function() return nn.Linear(2) end, "out_features"},
    ["an option out of bounds"] = {function() return nn.Dropout(1.5) end, "Dropout", "1.5"},
    ["an option that is NaN"] = {function() return nn.Dropout(0 / 0) end, "Dropout", "p"},
    ["an option of another type"] = {function() return nn.Linear("a", 3) end, "in_features", "integer"},
    ["a kernel larger than its input"] = {function() return nn.Conv2d(1, 1, 5)(tide.ones(1, 1, 3, 3)) end, "conv2d", "kernel"},
    ["channels that do not match"] = {function() return nn.Conv2d(3, 1, 1)(tide.ones(1, 1, 3, 3)) end, "3", "1"},
    ["a ragged table"] = {function() return tide.tensor {{1, 2}, {3}} end, "tensor"},
    ["a tensor where a number is due"] = {function() return tide.zeros("x") end, "zeros"},
    ["an integer division by zero"] = {function()
      return tide.tensor({1}, {dtype = "i64"}) // tide.tensor({0}, {dtype = "i64"})
    end, "division by zero"},
    ["comparison of many elements"] = {function() return x < x end, "x:lt"},
    ["an unknown field"] = {function() return x.foo end, "foo"},
    ["item of many elements"] = {function() return x:item() end, "item", "(2, 3)"},
    ["a gradient of integers"] = {function() return tide.zeros(2, {dtype = "i64"}):requires_grad_() end, "float"},
    ["more axes than there may be"] = {function() return tide.ones(1, 1, 1, 1, 1, 1, 1, 1, 1) end, "8"},
    ["a file that is not there"] = {function() return tide.load "no/such/file.safetensors" end, "no/such/file.safetensors"},
    ["a plugin that is not there"] = {function() return tide.plugin "no/such/plugin.so" end, "no/such/plugin.so"},
  }
  for what, case in pairs(cases) do
    it(what, function() fails_with(table.unpack(case)) end)
  end

  it("a cyclic module is one error", function()
    local a, b = nn.Sequential(), nn.Sequential()
    a:append(b); b:append(a)
    fails_with(function() return a:parameters() end, "cannot hold itself")
  end)

  it("nothing leaks and the next call works", function()
    collectgarbage(); collectgarbage()
    local before = tide.memory("cpu").current
    for _ = 1, 100 do for _, case in pairs(cases) do pcall(case[1]) end end
    collectgarbage(); collectgarbage()
    assert.is_true(tide.memory("cpu").current <= before + 4096)
    assert_close({{2, 2, 2}, {2, 2, 2}}, x + x)
  end)
end)

describe("nn.Module errors", function()
  it("an unknown name in a registry lookup is no crash", function()
    fails_with(function() return tide.nn.NoSuchLayerAtAll end, "NoSuchLayerAtAll")
  end)
end)
