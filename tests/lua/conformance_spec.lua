-- The conformance suite (lua/tide/check) over all that is registered: every op, layer, loss and optimizer, on its own samples.
local tide = require "tide"
local core = require "tide.core"
local check = tide.check

local subjects = check.subjects()
local by_kind = {op = 0, layer = 0, loss = 0, optim = 0}

describe("conformance of", function()
  for _, subject in ipairs(subjects) do
    local kind, name = subject[1], subject[2]
    by_kind[kind] = by_kind[kind] + 1
    it(kind .. " " .. name, function()
      local memory = tide.memory("cpu").current
      local report = check.run {subject}
      assert(#report.failed == 0, "\n" .. tostring(report))
      assert.is_true(report.passed > 0)
      assert.is_false(core.decompose(false)) -- the suite has put it back
      report = nil -- luacheck: ignore
      collectgarbage()
      collectgarbage()
      assert(tide.memory("cpu").current <= memory + 65536, "the checks left memory behind")
    end)
  end
end)

describe("the suite", function()
  it("covers everything that is announced and built in", function()
    assert.is_true(by_kind.op > 140)
    assert.is_true(by_kind.layer >= 20)
    assert.is_true(by_kind.loss >= 6)
    assert.is_true(by_kind.optim >= 4)
    for name in pairs(core.ops) do
      local found = false
      for _, s in ipairs(subjects) do found = found or s[1] == "op" and s[2] == name end
      assert(found, name)
    end
  end)
  it("has kernels on the CPU for all primitives, in f32 and in f64 or integers", function()
    for name in pairs(core.ops) do
      local traits, info = core.op_traits(name), core.op_info(name)
      if traits.primitive and not info.view then
        local any = false
        for _, dtype in ipairs {"f32", "f64", "i64", "u8", "bool"} do any = any or core.has_kernel(name, "cpu", dtype) end
        assert(any, name)
      end
    end
  end)
  it("finds what is wrong", function()
    local tools = require "tide.check.tools"
    local report = tools.report()
    assert.is_false(report:test("s", "t", function() return false, "why" end))
    assert.is_false(report:test("s", "u", function() error "boom" end) or false)
    assert.is_true(report:test("s", "v", function() return true end))
    assert.equal(2, #report.failed)
    assert.equal("why", report.failed[1].message)
    assert.is_false((tools.clear("relu", "two\nlines about relu")))
    assert.is_false((tools.clear("relu", "something went wrong")))
    assert.is_true((tools.clear("relu", "relu: expected a float, got i64")))
    assert.is_false((tools.agree({n = 1, tide.ones(2)}, {n = 1, tide.ones(3)}, 0, 0)))
    assert.is_false((tools.agree({n = 1, tide.ones(2)}, {n = 1, tide.zeros(2)}, 1e-3, 1e-3)))
    assert.is_false((tools.agree({n = 1, tide.tensor {0 / 0}}, {n = 1, tide.zeros(1)}, 1e-3, 1e-3)))
    assert.is_true((tools.agree({n = 1, tide.tensor {0 / 0}}, {n = 1, tide.tensor {0 / 0}}, 1e-3, 1e-3)))
  end)
  it("makes inputs that are strided and empty", function()
    local tools = require "tide.check.tools"
    local x = tide.arange(0, 24):reshape(2, 3, 4)
    local s = tools.strided(x)
    assert.is_false(s:is_contiguous())
    assert.is_true(s:equal(x))
    assert.equal("(0, 3, 4)", tostring(tools.emptied(x):shape()))
  end)
end)
