--- tide.capture: chains of element-wise ops are one kernel that works tile by tile, to the same bits.
local tide = require "tide"
local nn, optim = tide.nn, tide.optim

describe("tide.capture runs chains of element-wise ops tile by tile", function()
  local function same_bits(f, ...)
    local c = tide.capture(f)
    for i = 1, 5 do
      local expected, got = {f(...)}, {c(...)}
      for k = 1, #expected do
        assert.is_true(expected[k]:eq(got[k]):all():item(), ("result %d of call %d"):format(k, i))
      end
    end
    assert.is_true(c:stats().replays >= 2)
    return c:stats()
  end

  it("with rows, single values and numbers broadcast, to the same bits", function()
    tide.manual_seed(2)
    for _, shape in ipairs {{70000}, {257, 200}, {37, 10, 131}, {40000, 1}} do
      local x, y = tide.randn(shape), tide.rand(shape)
      local row, one = tide.randn(shape[#shape]), tide.tensor {0.5}
      local stats = same_bits(function(a, b)
        local h = (a * 2 + row):tanh() * b
        local k = (h - one):exp() / (b + 1)
        return k:sigmoid() + h, k:gt(0.5)
      end, x, y)
      assert.is_true(stats.tiled >= 8, shape[1] .. ": tiled " .. stats.tiled)
    end
  end)

  it("with rows and single values that lie elsewhere at each call", function()
    local x, held = tide.arange(0, 80000):reshape(400, 200), {}
    local function f(a, row, one)
      local s = a:sum()
      return ((a + row) * one - 1):relu() * s, s
    end
    local c = tide.capture(f)
    for call = 1, 8 do
      local row, one = tide.full({200}, call), tide.tensor {1 / call}
      local expected, got = f(x * call, row, one), {c(x * call, row, one)}
      assert.is_true(expected:eq(got[1]):all():item(), "call " .. call)
      held[call] = {row, one, got[2]}
    end
    assert.equal(8, #held)
    assert.is_true(c:stats().replays >= 5 and c:stats().tiled >= 4)
  end)

  it("with results that are read in several chains, and changes in place", function()
    tide.manual_seed(3)
    local x, total = tide.randn(300, 300), tide.zeros(300, 300)
    local function f(a)
      local h = (a + 1):abs()
      local s = h:sum(1)
      local g = (h * s):sqrt() + h
      g:mul_(2)
      return g, (g - a):relu()
    end
    assert.is_true(same_bits(f, x).tiled >= 6)
    local c = tide.capture(function(a) total:add_(a:relu() * 2) end)
    for _ = 1, 5 do c(x) end
    assert.is_true(total:allclose(x:relu() * 10))
    assert.equal(3, c:stats().tiled)
  end)

  it("but not where a part reads another part of what is written", function()
    local x = tide.arange(0, 80000)
    local c = tide.capture(function(a)
      local y = a * 1
      local head, tail = y:narrow(1, 1, 40000), y:narrow(1, 40001, 40000)
      tail:add_(head)
      head:add_(tail)
      return y
    end)
    local expected = tide.cat({x:narrow(1, 1, 40000) * 2 + x:narrow(1, 40001, 40000),
      x:narrow(1, 40001, 40000) + x:narrow(1, 1, 40000)}, 1)
    for _ = 1, 5 do assert.is_true(c(x):eq(expected):all():item()) end
  end)

  it("and trains a network with residual connections to the same bits", function()
    local function run(captured)
      tide.manual_seed(4)
      local first, second = nn.Linear(64, 300), nn.Linear(300, 300)
      local last, x = nn.Linear(300, 1), tide.randn(200, 64)
      local o = optim.SGD({first.weight, second.weight, last.weight}, {lr = 0.01, momentum = 0.9})
      local function step(a)
        o:zero_grad()
        local h = first(a):tanh()
        h = h + nn.functional.silu(second(h)) * 0.5
        local loss = (last(h) - 1):square():mean()
        loss:backward()
        o:step()
        return loss
      end
      local f, list = captured and tide.capture(step) or step, {}
      for i = 1, 8 do list[i] = f(x):item() end
      return list, captured and f:stats()
    end
    local eager = run(false)
    local captured, stats = run(true)
    assert.same(eager, captured)
    assert.is_true(stats.replays >= 5 and stats.tiled > 0 and stats.buffer_bytes < stats.eager_bytes)
  end)
end)
