--- Captured programs run cheap steps twice rather than keep their results for long: less memory, the same bits.
local tide = require "tide"
local nn, optim = tide.nn, tide.optim

--- Calls a captured f(...) a few times; its results must be those of f. Returns its stats.
local function captured(f, options, ...)
  local c, seed = tide.capture(f, options), 5
  for call = 1, 5 do
    tide.manual_seed(seed + call)
    local expected = {f(...)}
    tide.manual_seed(seed + call)
    local got = {c(...)}
    for k = 1, #expected do
      assert.is_true(expected[k]:eq(got[k]):all():item(), ("result %d of call %d"):format(k, call))
    end
  end
  local s = c:stats()
  assert.is_true(s.replays >= 2, s.why)
  return s
end

local N = 200

--- f(x): h = make(x) is read at once, and once more after a time when much else is in use; between(x, h) runs in that time.
local function with_gap(make, between)
  local w = tide.eye(N) * 0.5
  return function(x)
    local h = make(x)
    local a = h:matmul(w)
    if between then between(x, h) end
    local p, q = a:matmul(w), a:matmul(w)
    for _ = 1, 6 do p = p:matmul(q) end
    local s = p:sum()
    return s, (h * s):sum()
  end
end

local function exp(x) return x:exp() end
local function input() return (tide.arange(0, N * N):reshape(N, N) / (N * N)) end

describe("a captured program", function()
  it("computes a cheap result again before its later use, and needs less memory", function()
    local f = with_gap(exp)
    local kept, again = captured(f, {recompute = false}, input()), captured(f, nil, input())
    assert.equal(0, kept.recomputed)
    assert.equal(0, kept.saved_bytes)
    assert.equal(1, again.recomputed)
    assert.equal(kept.kernels + 1, again.kernels)
    assert.equal(N * N * 4, again.saved_bytes)
    assert.equal(kept.buffer_bytes - again.saved_bytes, again.buffer_bytes)
  end)

  it("also computes again what that is computed from", function()
    local s = captured(with_gap(function(x) return (x:exp() + 1):sqrt() end), nil, input())
    assert.equal(3, s.recomputed)
    assert.equal(N * N * 4, s.saved_bytes)
  end)

  it("says which steps those are", function()
    local c = tide.capture(with_gap(exp))
    for _ = 1, 4 do c(input()) end
    local found = 0
    for _, line in ipairs(c:kernels()) do
      if line:find("^| exp f32 %(200, 200%) %-> %(200, 200%)  again  at ") then found = found + 1 end
    end
    assert.equal(1, found)
  end)

  it("draws the same random numbers again", function()
    local drop = nn.Dropout(0.5)
    local s = captured(with_gap(function(x) return drop(x) end), nil, input())
    assert.equal(1, s.recomputed)
  end)

  describe("keeps a result", function()
    local function is_kept(f, ...)
      assert.equal(0, captured(f, nil, ...).recomputed)
    end

    it("whose input is changed in place before the later use", function()
      is_kept(with_gap(exp, function(x) x:mul_(1) end), input())
    end)

    it("whose input is changed through a view", function()
      is_kept(with_gap(exp, function(x) x:narrow(1, 3, 1):mul_(1) end), input())
      is_kept(with_gap(function(x) return x:t():exp() end, function(x) x:narrow(2, 3, 1):mul_(1) end), input())
    end)

    it("that is changed in place itself, or through a view", function()
      is_kept(with_gap(exp, function(_, h) h:add_(1) end), input())
      is_kept(with_gap(exp, function(_, h) h:narrow(1, 1, 1):add_(1) end), input())
    end)

    it("whose input may be an argument that is changed", function()
      local outside = input()
      is_kept(with_gap(function() return outside:exp() end, function(x) x:mul_(1) end), input())
    end)

    it("that the function gives, or that somebody holds", function()
      local w, held = tide.eye(N) * 0.5, nil
      local function f(x, hold)
        local h = x:exp()
        local a = h:matmul(w)
        local p, q = a:matmul(w), a:matmul(w)
        local s = p:matmul(q):sum()
        if hold then held = h end
        return (h * s):sum(), not hold and h or nil
      end
      is_kept(function(x) return f(x, false) end, input())
      is_kept(function(x) return f(x, true) end, input())
      assert.is_true(held:allclose(input():exp()))
    end)

    it("that costs more than reading its inputs", function()
      local w = tide.eye(N)
      is_kept(with_gap(function(x) return x:matmul(w) end), input())
    end)
  end)

  it("computes again although a change follows the later use", function()
    local f = with_gap(exp)
    local s = captured(function(x)
      local s, t = f(x)
      x:mul_(1)
      return s, t
    end, nil, input())
    assert.equal(1, s.recomputed)
  end)

  it("reads views of what is computed again", function()
    local w = tide.eye(N) * 0.5
    local s = captured(function(x)
      local h = x:exp()
      local a = h:matmul(w)
      local p, q = a:matmul(w), a:matmul(w)
      local s = p:matmul(q):sum()
      return (h:narrow(2, 2, 50) * s):sum(), h:t():matmul(w):sum()
    end, nil, input())
    assert.equal(1, s.recomputed)
  end)

  describe("trains to the same bits with less memory:", function()
    local function trains(make, x, loss_of)
      local function run(options)
        tide.manual_seed(7)
        local net = make()
        local o = optim.SGD(net:parameters(), {lr = 0.01, momentum = 0.9})
        local function step(a)
          o:zero_grad()
          local loss = loss_of(net(a))
          loss:backward()
          o:step()
          return loss
        end
        local f, list = options and tide.capture(step, options) or step, {}
        for i = 1, 6 do list[i] = f(x):item() end
        return list, options and f:stats()
      end
      local eager = run()
      local plain, kept = run {recompute = false}
      local twice, again = run {}
      assert.same(eager, plain)
      assert.same(eager, twice)
      assert.same(eager, (run {check = true}))
      assert.is_true(again.replays >= 3 and again.recomputed > 0)
      assert.equal(kept.buffer_bytes - again.saved_bytes, again.buffer_bytes)
      assert.is_true(again.buffer_bytes < 0.9 * kept.buffer_bytes,
        ("%d of %d bytes"):format(again.buffer_bytes, kept.buffer_bytes))
    end

    local function square(y) return y:square():mean() end

    it("layer norm, linear and gelu, dropout", function()
      local Block = nn.Module:extend "RecomputeBlock"
      function Block:init(width)
        self.norm, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.gelu, self.drop = nn.GELU(), nn.Dropout(0.1)
      end
      function Block:forward(x) return x + self.drop(self.down(self.gelu(self.up(self.norm(x))))) end
      for _, rows in ipairs {128, 77} do
        trains(function() return nn.Sequential(Block(67), Block(67), Block(67)) end, tide.randn(rows, 67), square)
      end
    end)

    it("convolution, batch norm and relu", function()
      local function layer(c, d)
        return nn.Sequential(nn.Conv2d(c, d, 3, {padding = 1, bias = false}), nn.BatchNorm2d(d), nn.ReLU())
      end
      trains(function() return nn.Sequential(layer(3, 16), layer(16, 16), layer(16, 16), layer(16, 7)) end,
        tide.randn(4, 3, 17, 16), square)
    end)

    it("linear, batch norm and tanh", function()
      local Layer = nn.Module:extend "RecomputeLayer"
      function Layer:init(n) self.linear, self.norm = nn.Linear(n, 150), nn.BatchNorm2d(150) end
      function Layer:forward(x) return self.norm(self.linear(x):reshape {-1, 150, 1, 1}):reshape {-1, 150}:tanh() end
      trains(function() return nn.Sequential(Layer(30), Layer(150), Layer(150), Layer(150)) end, tide.randn(90, 30), square)
    end)
  end)
end)
