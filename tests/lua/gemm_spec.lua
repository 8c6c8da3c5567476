--- Matrix products of every size class and layout against the same product in f64.
local tide = require "tide"

--- The greatest difference, in units of what rounding a sum of k products may leave.
local function error_of(got, a, b, k)
  local exact = a:to "f64":matmul(b:to "f64")
  local scale = 2.4e-7 * (k + 10)
  return (got:to "f64" - exact):abs():max():item() / scale
end

local function normal(r, c, turned)
  if turned then return tide.randn(c, r):transpose(1, 2) end
  return tide.randn(r, c)
end

describe("matmul in f32", function()
  before_each(function() tide.manual_seed(3) end)
  local sizes = {
    {1, 1, 1}, {4, 8, 2}, {5, 17, 40}, {6, 16, 16}, {7, 33, 19}, {13, 15, 100}, {64, 10, 128}, {10, 128, 64}, {64, 256, 784}, {25, 31, 321},
    {97, 193, 65}, {100, 48, 640}, {3, 200, 333}, {200, 3, 333}, {1, 300, 50}, {300, 1, 50}, {129, 129, 129},
  }
  for _, s in ipairs(sizes) do
    local m, n, k = s[1], s[2], s[3]
    it(("is right for (%d, %d) by (%d, %d), as they lie and transposed"):format(m, k, k, n), function()
      for _, ta in ipairs {false, true} do
        for _, tb in ipairs {false, true} do
          local a, b = normal(m, k, ta), normal(k, n, tb)
          assert(error_of(a:matmul(b), a, b, k) < 1, ("transposed: %s %s"):format(ta, tb))
        end
      end
    end)
  end

  it("takes operands with gaps, columns of larger matrices, and batches", function()
    local a, b = tide.randn(40, 3, 50):select(2, 2), tide.randn(50, 2, 60):select(2, 1)
    assert(error_of(a:matmul(b), a, b, 50) < 1)
    local every_other = tide.randn(80, 100, 2):select(3, 1)
    b = tide.randn(100, 30)
    assert(error_of(every_other:matmul(b), every_other, b, 100) < 1)
    a, b = tide.randn(3, 40, 50), tide.randn(3, 70, 50):transpose(2, 3)
    assert(error_of(a:matmul(b), a, b, 50) < 1)
  end)

  it("gives zeros for an inner size of 0, and nothing for no rows", function()
    assert.equal(0, tide.zeros(70, 0):matmul(tide.zeros(0, 90)):abs():sum():item())
    assert.same({0, 90}, {table.unpack(tide.zeros(0, 50):matmul(tide.zeros(50, 90)):shape())})
  end)

  it("passes NaN and infinity on, also over what the result's memory held", function()
    local a, b = tide.ones(40, 40), tide.ones(40, 40)
    a[{3, 5}] = 0 / 0
    local c = a:matmul(b)
    assert(c[{3, 7}]:item() ~= c[{3, 7}]:item())
    assert.equal(40, c[{4, 7}]:item())
  end)

  it("is bit-equal on any number of threads", function()
    if os.getenv "TIDE_CPU_ISA" == "plain" then return pending "large products are OpenBLAS's" end
    local a, b = tide.randn(130, 700), tide.randn(700, 200)
    local threads = tide.get_num_threads()
    tide.set_num_threads(1)
    local one = a:matmul(b)
    tide.set_num_threads(threads)
    assert(one:eq(a:matmul(b)):all():item())
  end)

  it("adds a bias along rows, whichever way the product is taken", function()
    for _, s in ipairs {{64, 256, 784}, {5, 70, 300}, {300, 40, 64}, {2, 3, 4}, {64, 10, 128}, {1, 40, 100}} do
      local x, w, b = tide.randn(s[1], s[3]), tide.randn(s[2], s[3]), tide.randn(s[2])
      local y = tide.linear(x, w, b)
      assert(error_of(y - b, x, w:transpose(1, 2), s[3]) < 2)
    end
  end)
end)

describe("linear_act in f32", function()
  local plain = os.getenv "TIDE_CPU_ISA" == "plain"

  --- Result and gradients of x, w and b for a gradient g of the result; in the dtype given.
  local function all_of(t, activation, dtype)
    local x, w, b = table.unpack(t, 1, 3)
    x, w, b = x:to(dtype):detach(), w:to(dtype):detach(), b:to(dtype):detach()
    for _, p in ipairs {x, w, b} do p:requires_grad_() end
    local y = tide.linear_act(x, w, b, {activation = activation})
    local gx, gw, gb = table.unpack(tide.grad({y}, {x, w, b}, {grad_outputs = {t[4]:to(dtype):detach()}}))
    return {y = y:detach(), gx = gx, gw = gw, gb = gb}
  end

  -- rows, inputs, outputs: one unit and many, one block of the sum and several, weights that are packed as a whole and not
  local sizes = {
    {700, 96, 160, "gelu"}, {2050, 40, 24, "relu"}, {97, 130, 17, "gelu_tanh"}, {64, 300, 256, "tanh"}, {130, 1400, 200, "gelu"},
    {600, 65, 350, "none"}, {5, 70, 300, "sigmoid"},
  }
  for _, s in ipairs(sizes) do
    local m, k, n, activation = table.unpack(s)
    it(("agrees with f64 for x (%d, %d), %d outputs, %s, and on any number of threads"):format(m, k, n, activation), function()
      tide.manual_seed(5)
      local t = {tide.randn(m, k), tide.randn(n, k) * (1 / math.sqrt(k)), tide.randn(n), tide.randn(m, n)}
      local exact, threads = all_of(t, activation, "f64"), tide.get_num_threads()
      tide.set_num_threads(1)
      local one = all_of(t, activation, "f32")
      tide.set_num_threads(3)
      local three = all_of(t, activation, "f32")
      tide.set_num_threads(threads)
      for name, v in pairs(exact) do
        local scale = v:abs():max():item()
        assert((one[name]:to "f64" - v):abs():max():item() < 2e-6 * scale, name)
        if not plain then assert(one[name]:eq(three[name]):all():item(), name .. ": bits differ") end -- there OpenBLAS multiplies
      end
    end)
  end

  it("gives a bias's gradient without the others", function()
    tide.manual_seed(6)
    local x, w, b, g = tide.randn(300, 20), tide.randn(200, 20), tide.zeros(200):requires_grad_(), tide.randn(300, 200)
    local y = tide.linear_act(x, w, b, {activation = "none"})
    local gb = tide.grad({y}, {b}, {grad_outputs = {g}})[1]
    assert((gb:to "f64" - g:to "f64":sum {axes = 1}):abs():max():item() < 1e-4)
  end)
end)
