--- Sequential runs a layer and the activation behind it as one op: what a user sees stays the same.
local tide = require "tide"
local nn = tide.nn

--- Forward and all gradients of net on x, as f64 tensors.
local function run(net, x)
  x = x:detach():requires_grad_()
  net:zero_grad()
  local y = net(x)
  local loss = (y * tide.arange(1, y:numel() + 1):reshape(y:shape()) / y:numel()):sum()
  loss:backward()
  local all = {y:detach(), x.grad}
  for _, p in net:named_parameters() do all[#all + 1] = p.grad end
  return all
end

local activations = {ReLU = nn.ReLU, Tanh = nn.Tanh, Sigmoid = nn.Sigmoid, GELU = nn.GELU,
                     ["GELU by tanh"] = function() return nn.GELU("tanh") end}

describe("a chain of a layer and an activation", function()
  before_each(function()
    tide.manual_seed(5)
    nn.chain(true)
  end)
  after_each(function() nn.chain(true) end)

  for name, make in pairs(activations) do
    for _, size in ipairs {{4, 2, 8}, {13, 70, 37}, {96, 130, 200}} do
      it(("Linear, %s on (%d, %d) is one op with the same results"):format(name, size[1], size[2]), function()
        local net = nn.Sequential(nn.Linear(size[2], size[3]), make(), nn.Linear(size[3], 3))
        local x = tide.randn(size[1], size[2])
        local chained = run(net, x)
        nn.chain(false)
        local apart = run(net, x)
        for i = 1, #apart do assert_close(apart[i]:totable(), chained[i], 2e-5) end
      end)
    end
  end

  -- channels, results, extents, kernel, stride, padding: by windows, tiles, pixels and points
  for _, c in ipairs {{1, 6, 20, 5, 1, 2}, {16, 24, 17, 3, 1, 1}, {16, 32, 16, 3, 2, 1}, {64, 64, 7, 1, 1, 0}, {6, 16, 14, 5, 1, 0}} do
    it(("Conv2d, ReLU on %d to %d channels of %d x %d is one op with the same results"):format(c[1], c[2], c[3], c[3]), function()
      for _, bias in ipairs {true, false} do
        local net = nn.Sequential(nn.Conv2d {c[1], c[2], c[4], stride = c[5], padding = c[6], bias = bias}, nn.ReLU())
        for _, order in ipairs {function(x) return x end, tide.channels_last} do
          local x = order(tide.randn(9, c[1], c[3], c[3]))
          local chained = run(net, x)
          nn.chain(false)
          local apart = run(net, x)
          nn.chain(true)
          for i = 1, #apart do assert_close(apart[i]:totable(), chained[i], 5e-5) end
        end
      end
    end)
  end

  it("takes leading axes, a single row and no bias", function()
    local net = nn.Sequential(nn.Linear(5, 6, false), nn.Tanh())
    for _, shape in ipairs {{2, 3, 5}, {5}, {0, 5}} do
      local x = tide.randn(shape)
      local y = net(x)
      nn.chain(false)
      if y:numel() > 0 then assert_close(net(x):totable(), y, 1e-6) end
      assert(y:shape() == net(x):shape())
      nn.chain(true)
    end
  end)

  it("has a second derivative", function()
    local net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 4), nn.GELU(), nn.Linear(4, 1)):to "f64"
    local x = tide.randn(1, 3, {dtype = "f64"})
    local function second() return tide.hessian(function(v) return net(v):sum() end, x) end
    local chained = second()
    nn.chain(false)
    assert_close(second():totable(), chained, 1e-12)
    assert(chained:abs():max():item() > 1e-4)
  end)

  it("is one op in a profile, and two when chaining is off", function()
    local net, x = nn.Sequential(nn.Linear(3, 4), nn.ReLU()), tide.randn(2, 3)
    local function ops()
      local names = {}
      for _, row in ipairs(tide.profile(function() net(x) end)) do names[#names + 1] = row.op end
      table.sort(names)
      return table.concat(names, " ")
    end
    assert.equal("linear_act", ops())
    assert.is_true(nn.chain(false))
    assert.equal("linear relu", ops())
    assert.is_false(nn.chain())
    nn.chain(true)
    net, x = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()), tide.randn(1, 1, 4, 4)
    assert.equal("conv2d_act", ops())
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Tanh())
    assert.equal("conv2d tanh", ops())
    net = nn.Conv2d {1, 2, 3, activation = "relu"}
    assert.equal("conv2d_act", ops())
    assert.equal('Conv2d(1, 2, 3, activation = "relu")', tostring(net))
  end)

  it("leaves printing, names, states and copies as they are", function()
    local net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    local text = tostring(net)
    assert(text:find("ReLU", 1, true) and text:find("(N, 4)", 1, true))
    local names = {}
    for name in net:named_parameters() do names[#names + 1] = name end
    assert.same({"1.weight", "1.bias", "3.weight", "3.bias"}, names)
    local x = tide.randn(2, 3)
    assert_close(net(x):totable(), net:clone()(x), 0)
  end)

  it("lets a watched class see every call", function()
    local class, calls = getmetatable(nn.ReLU()), 0
    local own = class.__call
    class.__call = function(...)
      calls = calls + 1
      return own(...)
    end
    nn.Sequential(nn.Linear(3, 4), nn.ReLU())(tide.randn(2, 3))
    class.__call = own
    assert.equal(1, calls)
  end)

  it("names the layer in an error", function()
    fails_with(function() nn.Sequential(nn.Linear(3, 4), nn.ReLU())(tide.randn(2, 5)) end, "Linear", "expected x (..., 3)")
    fails_with(function() nn.Sequential(nn.Linear(3, 4), nn.ReLU())("x") end, "expected a Tensor")
  end)

  it("runs other modules in turn, and passes more inputs to the first", function()
    local Two = nn.Module:extend "Two"
    function Two:forward(a, b) return a + b end -- luacheck: ignore 212
    local net = nn.Sequential(Two(), nn.ReLU(), nn.ReLU(), nn.Linear(3, 2), nn.Dropout(0), nn.ReLU())
    local x = tide.randn(2, 3)
    local y = net(x, x)
    nn.chain(false)
    assert_close(net(x, x):totable(), y, 1e-6)
  end)
end)
