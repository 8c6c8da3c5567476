-- Random numbers: Philox4x32-10 written out once more, in Lua, gives the same words; threads and instructions change nothing.
local tide = require "tide"
local nn = tide.nn

--- The four words of one counter (Salmon et al. 2011): ten rounds, key and counter in 32-bit halves.
local function philox(key, counter)
  local c0, c1, c2, c3 = counter & 0xffffffff, counter >> 32, 0, 0
  local k0, k1 = key & 0xffffffff, key >> 32
  for _ = 1, 10 do
    local a, b = 0xD2511F53 * c0, 0xCD9E8D57 * c2   -- below 2^64: they wrap to negative numbers, whose bits are right
    c0, c1, c2, c3 = (b >> 32) ~ c1 ~ k0, b & 0xffffffff, (a >> 32) ~ c3 ~ k1, a & 0xffffffff
    k0, k1 = (k0 + 0x9E3779B9) & 0xffffffff, (k1 + 0xBB67AE85) & 0xffffffff
  end
  return c0, c1, c2, c3
end
local function words(seed, offset, n)
  local list = {}
  for i = 0, (n - 1) // 4 do
    local w = {philox(seed, offset + i)}
    for k = 1, math.min(4, n - 4 * i) do list[4 * i + k] = w[k] end
  end
  return list
end
local function map(list, f)
  local out = {}
  for i, w in ipairs(list) do out[i] = f(w) end
  return out
end
local function bits(shape) return tide.random_bits(shape):totable() end

describe("random_bits", function()
  it("the written-out Philox gives the published words", function()
    assert.same({0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}, {philox(0, 0)}) -- kat_vectors of Random123
  end)
  for _, seed in ipairs {0, 1, 5, 0x123456789abcdef, -1} do
    it("are its words for seed " .. seed, function()
      tide.manual_seed(seed)
      assert.same(words(seed, 0, 13), bits {13})
      assert.same(words(seed, 4, 3), bits {3})
      assert.same({seed, 5}, tide.random_state())
    end)
  end
  it("of many elements, over all threads, are the same", function()
    tide.manual_seed(99)
    local n = 20003
    local got, want = tide.random_bits {n}, words(99, 0, n)
    assert.is_true(got:equal(tide.tensor(want, {dtype = "i64"})))
  end)
  it("go on where the counter's low word ends", function()
    tide.set_random_state {7, 0xffffffff}
    assert.same(words(7, 0xffffffff, 12), bits {12})
    tide.set_random_state {7, 0x1ffffffffff}
    assert.same(words(7, 0x1ffffffffff, 8), bits {8})
  end)
  it("count row-major in any shape, and nothing for no elements", function()
    tide.manual_seed(3)
    local w = words(3, 0, 6)
    assert.same({{w[1], w[2], w[3]}, {w[4], w[5], w[6]}}, tide.random_bits({2, 3}):totable())
    tide.random_bits {0, 5}
    assert.same({3, 2}, tide.random_state())
  end)
end)

describe("what is made of the words:", function()
  it("rand in f32 is (w >> 8) 2^-24", function()
    tide.manual_seed(21)
    assert.same(map(words(21, 0, 9), function(w) return (w >> 8) * 2.0 ^ -24 end), tide.rand(9):totable())
  end)
  it("rand in f64 has 53 bits of two calls", function()
    tide.manual_seed(21)
    local high, low, want = words(21, 0, 5), words(21, 2, 5), {}
    for i = 1, 5 do want[i] = ((high[i] >> 5) * 2.0 ^ 26 + (low[i] >> 6)) * 2.0 ^ -53 end
    assert.same(want, tide.rand(5, {dtype = "f64"}):totable())
  end)
  it("rand stays below 1 in every dtype", function()
    for _, dtype in ipairs {"f32", "f64", "f16", "bf16"} do
      local x = tide.rand(30000, {dtype = dtype}):to "f64"
      assert.is_true(x:amin():item() >= 0 and x:amax():item() < 1)
      assert.near(0.5, x:mean():item(), 0.01)
    end
  end)
  it("bernoulli is w < p 2^32", function()
    tide.manual_seed(8)
    local p = {0, 0.25, 0.5, 0.75, 1, 0.1, 0.9}
    local want = {}
    for i, w in ipairs(words(8, 0, 7)) do want[i] = w < p[i] * 2 ^ 32 and 1.0 or 0.0 end
    assert.same(want, tide.tensor(p, {dtype = "f64"}):bernoulli():totable())
  end)
  it("dropout keeps where w >= p 2^32", function()
    tide.manual_seed(8)
    local want = map(words(8, 0, 40), function(w) return w >= 2 ^ 30 and 4 / 3 or 0.0 end)
    assert_close(want, tide.dropout(tide.ones(40), 0.25), 1e-6)
  end)
  it("randint is low + floor(w range / 2^32)", function()
    tide.manual_seed(30)
    assert.same(map(words(30, 0, 20), function(w) return -3 + (w * 7 >> 32) end), tide.randint(-3, 4, {20}):totable())
  end)
  it("randn is Box and Muller's transform of pairs", function()
    tide.manual_seed(13)
    local w, want = words(13, 0, 8), {}
    for k = 1, 8, 2 do
      local r, angle = math.sqrt(-2 * math.log(((w[k] >> 8) + 1) * 2.0 ^ -24)), 2 * math.pi * (w[k + 1] >> 8) * 2.0 ^ -24
      want[k], want[k + 1] = r * math.cos(angle), r * math.sin(angle)
    end
    assert_close({table.unpack(want, 1, 7)}, tide.randn(7), 1e-6)
  end)
end)

describe("distributions:", function()
  setup(function() tide.manual_seed(2024) end)
  it("randn", function()
    for _, dtype in ipairs {"f32", "f64"} do
      local x = tide.randn(100000, {dtype = dtype})
      assert.near(0, x:mean():item(), 0.015)
      assert.near(1, x:std():item(), 0.015)
      assert.near(3, x:pow(4):mean():item(), 0.1)
      assert.near(0.6827, x:abs():lt(1):to "f32":mean():item(), 0.01)
      assert.is_true(x:isfinite():all():item())
    end
  end)
  it("bernoulli and dropout", function()
    for _, p in ipairs {0, 0.1, 0.5, 1} do
      assert.near(p, tide.full({50000}, p):bernoulli():mean():item(), 0.01)
      local y = tide.dropout(tide.ones(50000), p)
      assert.near(p, y:eq(0):to "f32":mean():item(), 0.01)
      if p < 1 then assert.near(1, y:mean():item(), 0.03) end
    end
  end)
  it("Dropout drops in training alone", function()
    local layer, x = nn.Dropout(0.5), tide.ones(1000)
    assert.near(500, layer(x):eq(0):sum():item(), 100)
    layer:eval()
    assert.is_true(layer(x):equal(x))
  end)
  it("randint, multinomial and randperm are even", function()
    local n = tide.randint(0, 5, {50000})
    for i = 0, 4 do assert.near(10000, n:eq(i):sum():item(), 500) end
    local drawn = tide.multinomial(tide.tensor {1, 2, 0, 5}, 80000, true):bincount(4):totable()
    for i, w in ipairs {1, 2, 0, 5} do assert.near(w * 10000, drawn[i], 500) end
    local first = {0, 0, 0, 0}
    for _ = 1, 2000 do
      local i = tide.randperm(4)[1]:item()
      first[i] = first[i] + 1
    end
    for i = 1, 4 do assert.near(500, first[i], 100) end
  end)
  it("tide.random: a number, 1 .. n, a .. b", function()
    local seen = {}
    for _ = 1, 200 do
      local u = tide.random()
      assert.is_true(u >= 0 and u < 1)
      seen[tide.random(3)] = true
      local i = tide.random(-2, 2)
      assert.is_true(math.type(i) == "integer" and i >= -2 and i <= 2)
    end
    assert.same({true, true, true}, seen)
    assert.equal(math.maxinteger, tide.random(math.maxinteger, math.maxinteger))
    assert.equal("integer", math.type(tide.random(math.mininteger, math.maxinteger)))
    fails_with(function() return tide.random(0) end, "random", "0")
    fails_with(function() return tide.random(1.5) end, "random", "integer")
  end)
end)

describe("the random stream", function()
  local function draw()
    local layer = nn.Linear(3, 2)
    return {tide.rand(5):totable(), tide.randn(3):totable(), tide.randperm(6):totable(), tide.random(), layer.weight:totable(),
            tide.multinomial(tide.ones(4), 2):totable(), tide.dropout(tide.ones(6), 0.5):totable()}
  end
  it("repeats with its seed", function()
    tide.manual_seed(42)
    local a = draw()
    tide.manual_seed(42)
    assert.same(a, draw())
    assert.not_same(a, draw())
    tide.manual_seed(43)
    assert.not_same(a, draw())
  end)
  it("goes on from a saved state", function()
    tide.manual_seed(1)
    draw()
    local state = tide.random_state()
    local a = draw()
    tide.set_random_state(state)
    assert.same(a, draw())
  end)
  it("refuses a seed or state that is none", function()
    fails_with(function() tide.manual_seed "x" end, "manual_seed", "integer")
    fails_with(function() tide.manual_seed(1.5) end, "manual_seed", "integer")
    fails_with(function() tide.manual_seed() end, "manual_seed", "nothing")
    for _, bad in ipairs {{}, {1}, {1, "x"}, {1.5, 2}, "ab"} do
      fails_with(function() tide.set_random_state(bad) end, "set_random_state", "random_state")
    end
    fails_with(function() tide.set_random_state() end, "set_random_state")
  end)
end)

describe("threads and instructions", function()
  local code = [[
    local tide = require "tide"
    tide.manual_seed(77)
    local function sum(t) -- of the bits: a difference in the last one shows
      local m, n = t:to "f64":reshape(-1):totable(), 0
      for i = 1, #m do n = (n * 31 + string.unpack("<i8", string.pack("<d", m[i]))) % 0x7fffffff end
      return n
    end
    local net = tide.nn.Sequential(tide.nn.Conv2d(3, 4, 3), tide.nn.Linear(50, 60))
    for _, t in ipairs {tide.rand(20011), tide.randn(20011), tide.randn(999, {dtype = "f64"}), tide.randint(0, 1000, {20011}),
                        tide.dropout(tide.ones(20011), 0.3), tide.full({20011}, 0.3):bernoulli(), tide.randperm(5000),
                        tide.multinomial(tide.arange(1, 50), 20), net[1].weight, net[2].weight} do print(sum(t)) end
  ]]
  local want
  for _, threads in ipairs {1, 2, 3} do
    for _, isa in ipairs {"plain", "avx2", "avx512"} do
      it(("%d threads, %s: the same bits"):format(threads, isa), function()
        local output, status = tide_process(code, ("OMP_NUM_THREADS=%d TIDE_CPU_ISA=%s"):format(threads, isa))
        if status ~= 0 and output:find("does not have these instructions", 1, true) then return pending "not on this processor" end
        assert.equal(0, status, output)
        want = want or output
        assert.equal(want, output)
      end)
    end
  end
end)
