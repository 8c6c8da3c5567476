-- Command-line options of a script.
local options = require "tide.options"
local tide = require "tide"

local defaults = {device = "cpu", epochs = 5, lr = 1e-3, fast = false, weight_decay = 0.0}

describe("tide.options", function()
  local cases = {
    {{}, "epochs", 5},
    {{"--epochs", "10"}, "epochs", 10},
    {{"--lr=0.5"}, "lr", 0.5},
    {{"--lr", "2"}, "lr", 2.0},
    {{"--fast"}, "fast", true},
    {{"--fast", "--no-fast"}, "fast", false},
    {{"--fast=no"}, "fast", false},
    {{"--weight-decay", "0.25"}, "weight_decay", 0.25},
    {{"--device", "cuda:1"}, "device", "cuda:1"},
    {{"--device="}, "device", ""},
    {{"a", "--epochs", "2", "b"}, 2, "b"},
    {{"--", "--epochs"}, 1, "--epochs"},
  }
  for _, c in ipairs(cases) do
    it(("reads '%s'"):format(table.concat(c[1], " ")), function()
      local got = assert(options.parse(defaults, c[1]))
      assert.equal(c[3], got[c[2]])
      assert.equal(math.type(c[3]), math.type(got[c[2]]))
    end)
  end

  local wrong = {
    {{"--epoch", "3"}, "did you mean '--epochs'?"},
    {{"--epochs", "2.5"}, "expected an integer, got '2.5'"},
    {{"--lr", "fast"}, "expected a number, got 'fast'"},
    {{"--lr"}, "--lr: expected a value"},
    {{"--fast=maybe"}, "true or false"},
    {{"--no-lr"}, "there is no option '--no-lr'"},
    {{"-x"}, "there is no option '-x'"},
  }
  for _, c in ipairs(wrong) do
    it(("refuses '%s'"):format(table.concat(c[1], " ")), function()
      local got, message = options.parse(defaults, c[1])
      assert.is_nil(got)
      assert.truthy(message:find(c[2], 1, true), message)
    end)
  end

  it("lists its options with their defaults", function()
    local text = options.usage("train.lua", defaults)
    assert.truthy(text:find("usage: train.lua", 1, true))
    assert.truthy(text:find("--weight-decay  number   default 0.0", 1, true))
    assert.same({nil, "help"}, {options.parse(defaults, {"--help"})})
  end)

  it("takes only simple defaults", function()
    fails_with(function() tide.options {list = {}} end, "options_spec.lua:", "list")
  end)
end)
