--- tide.capture: what is recorded is replayed, and only while nothing that matters has changed.
local tide = require "tide"
local nn, optim = tide.nn, tide.optim

--- A small network, its optimizer and a step over it, made from one seed.
local function setup(make_optimizer)
  tide.manual_seed(11)
  local net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 2))
  local o = (make_optimizer or function(p) return optim.Adam(p, {lr = 0.05, weight_decay = 0.01}) end)(net:parameters())
  local criterion = nn.CrossEntropyLoss()
  local function step(x, y)
    o:zero_grad()
    local loss = criterion(net(x), y)
    loss:backward()
    o:step()
    return loss
  end
  return net, o, step
end

local function batches(n)
  local list = {}
  for i = 1, n do
    local x = tide.arange(i, i + 12):reshape(4, 3):sin()
    list[i] = {x, tide.tensor({1, 2, i % 2 + 1, 1}, {dtype = "i64"})}
  end
  return list
end

local function losses(captured, make_optimizer, n)
  local _, o, step = setup(make_optimizer)
  local f = captured and tide.capture(step) or step
  local list, data = {}, batches(5)
  for i = 1, n or 20 do
    if i == 12 then o.lr = o.lr / 2 end
    list[i] = f(table.unpack(data[i % 5 + 1])):item()
  end
  return list, captured and f:stats()
end

describe("tide.capture", function()
  for name, make in pairs {
    SGD = function(p) return optim.SGD(p, {lr = 0.1}) end,
    momentum = function(p) return optim.SGD(p, {lr = 0.1, momentum = 0.9, nesterov = true}) end,
    Adam = function(p) return optim.Adam(p, {lr = 0.02}) end,
    RMSprop = function(p) return optim.RMSprop(p, {lr = 0.01}) end,
  } do
    it("gives the bits of the uncaptured training with " .. name .. ", dropout and a changed learning rate", function()
      local eager = losses(false, make)
      local captured, stats = losses(true, make)
      assert.same(eager, captured)
      assert.is_true(stats.replays >= 15, "replayed " .. stats.replays .. " of 20: " .. stats.why)
    end)
  end

  it("runs an optimizer without a fused op as its step() says", function()
    local eager = losses(false, function(p) return optim.SGD(p, {lr = 0.1, momentum = 0.5}) end)
    local made = function(p)
      for _, t in ipairs(p) do assert.equal("f32", t.dtype) end
      return optim.SGD(p, {lr = 0.1, momentum = 0.5})
    end
    assert.same(eager, (losses(true, made)))
  end)

  it("trains in f64, where steps are made of parts", function()
    local function run(captured)
      tide.manual_seed(3)
      local net = nn.Sequential(nn.Linear(3, 4), nn.Sigmoid(), nn.Linear(4, 1)):to "f64"
      local o = optim.Adam(net:parameters(), {lr = 0.1})
      local x = tide.arange(0, 12, {dtype = "f64"}):reshape(4, 3):cos()
      local function step()
        o:zero_grad()
        local loss = (net(x) ^ 2):mean()
        loss:backward()
        o:step()
        return loss
      end
      local f, list = captured and tide.capture(step) or step, {}
      for i = 1, 10 do list[i] = f():item() end
      return list, captured and f:stats().replays
    end
    local eager = run(false)
    local captured, replays = run(true)
    assert.same(eager, captured)
    assert.is_true(replays >= 6)
  end)

  it("leaves .grad, parameters, buffers and optimizer states as the uncaptured step does", function()
    local function run(captured)
      tide.manual_seed(5)
      local net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2))
      local o = optim.Adam(net:parameters(), {lr = 0.01})
      local x, y = tide.randn(5, 1, 4, 4), tide.tensor({1, 2, 1, 2, 1}, {dtype = "i64"})
      local function step(a, b)
        o:zero_grad()
        local loss = nn.functional.cross_entropy(net(a), b)
        loss:backward()
        o:step()
        return loss
      end
      local f = captured and tide.capture(step) or step
      for _ = 1, 8 do f(x, y) end
      local out = {}
      for k, v in pairs(net:state_dict()) do out[k] = v:totable() end
      for k, v in net:named_parameters() do out[k .. ".grad"] = v.grad:totable() end
      for k, v in pairs(o:state_dict().state or {}) do
        for s, t in pairs(v) do out["state" .. k .. s] = tide.is_tensor(t) and t:totable() or t end
      end
      if captured then assert.is_true(f:stats().replays >= 5) end
      return out
    end
    assert.same(run(false), run(true))
  end)

  it("binds arguments anew, wherever they lie", function()
    local f = tide.capture(function(x, y) return x * 2 + y, y - x end)
    for i = 1, 6 do
      local a, b = f(tide.tensor {i, 2 * i}, tide.tensor {10, 20})
      assert.same({2 * i + 10, 4 * i + 20}, a:totable())
      assert.same({10 - i, 20 - 2 * i}, b:totable())
    end
    assert.equal(4, f:stats().replays)
  end)

  it("gives results that later calls leave alone", function()
    local f, kept = tide.capture(function(x) return x + 1 end), {}
    for i = 1, 6 do kept[i] = f(tide.tensor {i}) end
    for i = 1, 6 do assert.equal(i + 1, kept[i]:item()) end
  end)

  it("leaves a gradient alone that somebody holds", function()
    local w = tide.tensor({2.0}, {requires_grad = true})
    local f = tide.capture(function(x)
      w.grad = nil
      local y = (w * x):sum()
      y:backward()
    end)
    local held = {}
    for i = 1, 6 do
      f(tide.tensor {i})
      held[i] = w.grad
    end
    for i = 1, 6 do assert.equal(i, held[i]:item()) end
  end)

  it("accumulates gradients where the function does not clear them", function()
    local w = tide.tensor({2.0}, {requires_grad = true})
    local f = tide.capture(function(x) (w * x):sum():backward() end)
    for i = 1, 6 do
      f(tide.tensor {1.0})
      assert.equal(i, w.grad:item())
    end
    w.grad = nil
    for i = 1, 5 do
      f(tide.tensor {1.0})
      assert.equal(i, w.grad:item())
    end
    assert.is_true(f:stats().replays > 0)
  end)

  it("takes gradients that were cleared outside", function()
    local w = tide.tensor({3.0}, {requires_grad = true})
    local f = tide.capture(function(x)
      local y = (w * w * x):sum()
      y:backward()
      return y
    end)
    for i = 1, 8 do
      w.grad = nil
      assert.equal(9 * i, f(tide.tensor {i}):item())
      assert.equal(6 * i, w.grad:item())
    end
    assert.is_true(f:stats().replays >= 5)
  end)

  it("runs an optimizer's step on gradients from outside", function()
    local w = tide.tensor({1.0}, {requires_grad = true})
    local sgd = optim.SGD({w}, {lr = 1})
    local f = tide.capture(function() sgd:step() end)
    for i = 1, 8 do
      sgd:zero_grad()
      ;(w * i):sum():backward()
      f()
    end
    assert.equal(1 - 36, w:item())
  end)

  it("draws fresh random numbers at each replay, the same as without it", function()
    local function run(captured)
      tide.manual_seed(9)
      local function draw(x) return (x * tide.rand(3)):sum() + nn.functional.dropout(x, 0.5):sum() end
      local f, list = captured and tide.capture(draw) or draw, {}
      for i = 1, 8 do list[i] = f(tide.ones(3)):item() end
      return list
    end
    local eager, captured = run(false), run(true)
    assert.same(eager, captured)
    assert.are_not.equal(captured[7], captured[8])
  end)

  it("makes class labels 0-based inside the replay", function()
    local f = tide.capture(function(x, i) return x:gather(i, 2):sum(), x:argmax(2) end)
    local x = tide.tensor {{1, 2, 3}, {6, 5, 4}}
    for _ = 1, 3 do
      for k = 1, 3 do
        local s, at = f(x, tide.tensor({{k}, {k}}, {dtype = "i64"}))
        assert.equal(7, s:item())
        assert.same({3, 1}, at:totable())
      end
    end
    assert.is_true(f:stats().replays >= 7)
  end)

  it("restores constants of the function that it writes to", function()
    local f = tide.capture(function(x)
      local sum = tide.tensor {1, 2}
      sum:add_(x)
      return sum * 1
    end)
    for _ = 1, 6 do assert.same({2, 3}, f(tide.tensor {1, 1}):totable()) end
    assert.equal(4, f:stats().replays)
  end)

  it("writes through to arguments and to tensors from outside", function()
    local total = tide.zeros(2)
    local f = tide.capture(function(x)
      x:mul_(2)
      total:add_(x)
    end)
    for i = 1, 6 do
      local x = tide.tensor {i, 1}
      f(x)
      assert.same({2 * i, 2}, x:totable())
    end
    assert.same({42, 12}, total:totable())
  end)

  it("keeps the version counters honest", function()
    local w = tide.tensor({1.0}, {requires_grad = true})
    local sgd = optim.SGD({w}, {lr = 0.1})
    local f = tide.capture(function()
      sgd:zero_grad()
      ;(w * w):sum():backward()
      sgd:step()
    end)
    for _ = 1, 4 do f() end
    local y = (w * w):sum()
    f()
    assert.has_error(function() y:backward() end)
  end)

  it("returns numbers, strings, booleans and nil as they were", function()
    local f = tide.capture(function(x) return "a", x + 1, nil, 7, 1.5, true end)
    for i = 1, 5 do
      local s, t, none, seven, real, yes = f(tide.tensor {i})
      assert.same({"a", 7, 1.5, true}, {s, seven, real, yes})
      assert.is_nil(none)
      assert.equal(i + 1, t:item())
    end
    assert.equal(3, f:stats().replays)
  end)

  describe("guards", function()
    it("shapes, dtypes and strides: each kind of argument has a recording of its own", function()
      local f = tide.capture(function(x) return x:sum(1) end)
      for _ = 1, 4 do
        assert.same({5, 7}, f(tide.tensor {{1, 2}, {4, 5}}):totable())
        assert.same({3, 9}, f(tide.tensor({{1, 4}, {2, 5}}):t()):totable() and {3, 9})
      end
      for _ = 1, 4 do f(tide.ones(3, 2)) end
      local before = f:stats().replays
      assert.same({2, 2}, f(tide.ones(2, 2)):totable())
      assert.same({3, 3}, f(tide.ones(3, 2)):totable())
      assert.is_true(f:stats().replays > before)
    end)

    it("numbers and strings that are given", function()
      local f = tide.capture(function(x, k) return x * k end)
      for _ = 1, 3 do assert.equal(6, f(tide.tensor {3}, 2):item()) end
      for _ = 1, 3 do assert.equal(9, f(tide.tensor {3}, 3):item()) end
      assert.equal(6, f(tide.tensor {3}, 2):item())
      assert.equal(2, f:stats().programs)
    end)

    it("training mode", function()
      local drop = nn.Dropout(0.5)
      local f = tide.capture(function(x) return drop(x):sum() end)
      for _ = 1, 4 do f(tide.ones(1000)) end
      drop:eval()
      for _ = 1, 4 do assert.equal(1000, f(tide.ones(1000)):item()) end
      drop:train()
      assert.are_not.equal(1000, f(tide.ones(1000)):item())
      assert.equal(2, f:stats().programs)
    end)

    it("training mode of a module in Lua", function()
      local Twice = nn.Module:extend "Twice"
      function Twice:forward(x) return self.training and x * 2 or x end -- luacheck: ignore 212
      local m = Twice()
      local f = tide.capture(function(x) return m(x) end)
      for _ = 1, 4 do assert.equal(2, f(tide.ones(1)):item()) end
      m:eval()
      assert.equal(1, f(tide.ones(1)):item())
      m:train()
      assert.equal(2, f(tide.ones(1)):item())
      assert.is_true(f:stats().replays >= 3)
    end)

    it("gradient mode", function()
      local w = tide.tensor({2.0}, {requires_grad = true})
      local f = tide.capture(function(x)
        local y = (w * x):sum()
        if tide.is_grad_enabled() then
          w.grad = nil
          y:backward()
        end
        return y:detach()
      end)
      for _ = 1, 4 do f(tide.ones(1)) end
      w.grad = nil
      tide.no_grad(function() assert.equal(2, f(tide.ones(1)):item()) end)
      assert.is_nil(w.grad)
    end)

    it("constant options of an optimizer", function()
      local w = tide.tensor({0.0}, {requires_grad = true})
      local sgd = optim.SGD({w}, {lr = 1})
      local f = tide.capture(function()
        sgd:zero_grad()
        w:sum():backward()
        sgd:step()
      end)
      for _ = 1, 5 do f() end
      assert.equal(-5, w:item())
      sgd.param_groups[1].maximize = true
      f()
      assert.equal(-4, w:item())
    end)

    it("parameters that were given other data", function()
      local net = nn.Linear(2, 2)
      local f = tide.capture(function(x) return net(x):detach() end)
      local x = tide.ones(1, 2)
      for _ = 1, 4 do f(x) end
      net:to "f64"
      local y = f(x:to "f64")
      assert.equal("f64", y.dtype)
      net:to "f32"
      tide.no_grad(function() net.weight:zero_(); net.bias:fill_(3) end)
      assert.same({{3, 3}}, f(x):totable())
    end)

    it("two arguments that are one tensor, and then are not", function()
      local f = tide.capture(function(x, y) return x + y end)
      local a, b = tide.tensor {1}, tide.tensor {10}
      for _ = 1, 4 do assert.equal(2, f(a, a):item()) end
      assert.equal(11, f(a, b):item())
      assert.equal(2, f(a, a):item())
    end)

    it("another tensor that the function looks up each time: it is not replayed, and says why", function()
      local current
      local f = tide.capture(function() return current * 2 end)
      for i = 1, 12 do
        current = tide.tensor {i}
        assert.equal(2 * i, f():item())
      end
      assert.equal(0, f:stats().replays)
      assert.matches("another tensor each time", f:stats().why)
      assert.matches("capture_spec.lua:%d+", f:stats().why)
    end)

    it("a structure that differs between calls", function()
      local n = 0
      local f = tide.capture(function(x)
        n = n + 1
        for _ = 1, n do x = x + 1 end
        return x
      end)
      for i = 1, 10 do assert.equal(i, f(tide.zeros(1)):item()) end
      assert.equal(0, f:stats().replays)
    end)
  end)

  describe("refuses", function()
    local function refused(f, ...)
      local ok, message = pcall(tide.capture(f), ...)
      assert.is_false(ok)
      assert.matches("capture_spec.lua:%d+: ", message)
      return message
    end

    it("to read a value for the script", function()
      assert.matches("reading a tensor's values inside a captured function", refused(function(x) return x:sum():item() end, tide.ones(2)))
      refused(function(x) return #x:totable() end, tide.ones(2))
      refused(function(x) return tostring(x) end, tide.ones(2))
    end)

    it("random numbers for the script, and seeding", function()
      refused(function() return tide.random(1, 6) end)
      refused(function() tide.manual_seed(1) end)
    end)

    it("shapes that depend on data", function() refused(function(x) return x:nonzero() end, tide.ones(2)) end)

    it("results that are recorded for gradients", function()
      local w = tide.ones(2):requires_grad_()
      assert.matches("result 1, of sum, is recorded for gradients", refused(function() return (w * 2):sum() end))
    end)

    it("arguments that are recorded for gradients", function()
      local w = tide.ones(2):requires_grad_()
      assert.matches("argument 1 is the result of mul", refused(function(x) return x end, w * 2))
    end)

    it("tables and functions as arguments or results", function()
      assert.matches("argument 1: expected a Tensor, a number", refused(function() end, {}))
      assert.matches("result 1: expected a Tensor, a number", refused(function() return {} end))
    end)

    it("what is no function, and options that are unknown or no booleans", function()
      assert.has_error(function() tide.capture(3) end)
      assert.has_error(function() tide.capture(print, {fast = true}) end)
      fails_with(function() tide.capture(print, {recompute = 3}) end, "capture: recompute: expected true or false, got 3")
      fails_with(function() tide.capture(print, {check = "no"}) end, "capture: check: expected true or false, got a string")
    end)
  end)

  it("passes an error of the function on, and goes on afterwards", function()
    local bad = true
    local f = tide.capture(function(x)
      if bad then error("mine", 0) end
      return x + 1
    end)
    local ok, message = pcall(f, tide.ones(1))
    assert.is_false(ok)
    assert.equal("mine", message)
    bad = false
    for _ = 1, 4 do assert.equal(2, f(tide.ones(1)):item()) end
    assert.equal(2, f:stats().replays)
  end)

  it("reports a kernel's error at a replay", function()
    local f = tide.capture(function(x, i) return x:index_select(i, 1) end)
    local x = tide.tensor {1, 2, 3}
    for _ = 1, 4 do f(x, tide.tensor({2}, {dtype = "i64"})) end
    assert.has_error(function() f(x, tide.tensor({9}, {dtype = "i64"})) end)
    assert.equal(3, f(x, tide.tensor({3}, {dtype = "i64"})):item())
  end)

  it("nests: the inner function is part of the outer recording", function()
    local inner = tide.capture(function(x) return x * 2 end)
    local outer = tide.capture(function(x) return inner(x) + 1 end)
    for i = 1, 5 do assert.equal(2 * i + 1, outer(tide.tensor {i}):item()) end
    assert.equal(3, outer:stats().replays)
  end)

  it("drops dead results, reuses buffers and makes no backend allocation", function()
    local _, _, step = setup()
    local f = tide.capture(function(x, y)
      local _ = (x * 3):exp() -- nobody looks at it
      return step(x, y)
    end)
    local data = batches(1)[1]
    for _ = 1, 10 do f(data[1], data[2]):free() end
    local stats = f:stats()
    assert.equal(2, stats.dropped)
    assert.is_true(stats.buffer_bytes < stats.eager_bytes)
    if sanitized then return end -- sanitizers do not reuse memory
    local before = tide.memory().allocs
    for _ = 1, 1000 do f(data[1], data[2]):free() end
    assert.equal(before, tide.memory().allocs)
  end)

  it("computes constants once", function()
    local f = tide.capture(function(x) return x + (tide.ones(3) * 2 + tide.tensor {1, 2, 3}):sum() end)
    for i = 1, 6 do assert.equal(12 + i, f(tide.tensor {i}):item()) end
    assert.equal(4, f:stats().constant)
    assert.equal(1, f:stats().kernels)
  end)

  it("forgets when it is reset", function()
    local f = tide.capture(function(x) return x + 1 end)
    for _ = 1, 4 do f(tide.ones(1)) end
    assert.equal(1, f:stats().programs)
    f:reset()
    assert.equal(0, f:stats().programs)
    assert.equal(2, f(tide.ones(1)):item())
    assert.matches("^capture: 5 calls, 2 replayed", tostring(f))
  end)

  it("is not reset while it records", function()
    local f
    f = tide.capture(function(x)
      f:reset()
      return x
    end)
    local ok, message = pcall(f, tide.ones(1))
    assert.is_false(ok)
    assert.matches("capture_spec.lua:%d+: capture: reset while a captured function is being recorded", message)
  end)

  describe("in check mode", function()
    it("runs the function each time, and is content where it does the same", function()
      local eager, data, list = losses(false), batches(5), {}
      local _, o2, step = setup()
      local f = tide.capture(step, {check = true})
      for i = 1, 20 do
        if i == 12 then o2.lr = o2.lr / 2 end
        list[i] = f(table.unpack(data[i % 5 + 1])):item()
      end
      assert.same(eager, list)
    end)

    it("names op and line where a Lua value was frozen", function()
      local k = 1
      local f = tide.capture(function(x) return x * k end, {check = true})
      for _ = 1, 3 do f(tide.ones(2)) end
      k = 2
      local ok, message = pcall(f, tide.ones(2))
      assert.is_false(ok)
      assert.matches("op 1, mul: its input 2 is another number", message)
      assert.matches("capture_spec.lua:%d+", message)
    end)
  end)
end)
