local tide = require "tide"
local nn = tide.nn

local function leaf(...) return tide.randn(...):requires_grad_() end

--- Largest distance of two lists of tensors, as a share of the second's largest number.
local function distance(a, b)
  local worst = 0
  for i = 1, #b do
    local x, y = a[i]:to "f64", b[i]:to "f64"
    worst = math.max(worst, (x - y):abs():max():item() / math.max(1, y:abs():max():item()))
  end
  return worst
end

local function orders(x) return {x, tide.channels_last(x)} end

describe("batch norm with a relu and a residual", function()
  before_each(function() tide.manual_seed(3) end)

  -- channels: less than a vector, one, several and a rest, more than are summed at once; few and many rows
  for _, c in ipairs {{3, 5, 7, 6}, {4, 8, 5, 5}, {2, 70, 9, 9}, {32, 16, 20, 20}, {7, 8, 20, 30}, {9, 3, 33, 61}, {5, 600, 5, 5}} do
    it(("computes what single ops do, forward and backward, x (%s)"):format(table.concat(c, ", ")), function()
      local x0, r0, g0 = tide.randn(table.unpack(c)) + 1, tide.randn(table.unpack(c)), tide.randn(table.unpack(c))
      local w, b = leaf(c[2]), leaf(c[2])
      for _, residual in ipairs {false, true} do
        for i = 1, 2 do
          local x, r, g = orders(x0)[i]:detach():requires_grad_(), orders(r0)[i]:detach():requires_grad_(), orders(g0)[i]
          local leaves = residual and {x, w, b, r} or {x, w, b}
          local y = tide.batch_norm(x, w, b, residual and r or nil, {activation = "relu"})
          local z = tide.batch_norm(x, w, b)
          local want = (residual and z + r or z):relu()
          local got, expected = tide.grad({y}, leaves, {grad_outputs = {g}}), tide.grad({want}, leaves, {grad_outputs = {g}})
          table.insert(got, y)
          table.insert(expected, want)
          assert(distance(got, expected) < 2e-5)
        end
      end
    end)
  end

  it("has statistics that neither a great mean nor a great first pixel spoils", function()
    for _, c in ipairs {{6, 5, 17, 19}, {3, 70, 9, 9}} do
      local near = tide.randn(table.unpack(c)) + 1000
      local far = tide.randn(table.unpack(c))
      far[{1, {}, 1, 1}] = 3000
      for _, x in ipairs {near, far} do
        local d = x:to "f64"
        local rows = d:permute(2, 1, 3, 4):flatten(2, 4)
        local mean, var = rows:mean(2, true), (rows - rows:mean(2, true)):square():mean(2, true)
        local want = (d - mean:reshape(1, c[2], 1, 1)) / (var + 1e-5):sqrt():reshape(1, c[2], 1, 1)
        for _, v in ipairs(orders(x)) do assert(distance({tide.batch_norm(v)}, {want}) < 1e-4) end
      end
    end
  end)

  it("gives the same bits with any number of threads", function()
    local threads = tide.get_num_threads()
    local x, g = tide.channels_last(tide.randn(9, 33, 31, 17)):detach():requires_grad_(), tide.channels_last(tide.randn(9, 33, 31, 17))
    local w, b = leaf(33), leaf(33)
    local function results()
      local y = tide.batch_norm(x, w, b, nil, {activation = "relu"})
      local list = tide.grad({y}, {x, w, b}, {grad_outputs = {g}})
      list[4] = y
      return list
    end
    tide.set_num_threads(1)
    local want = results()
    tide.set_num_threads(3)
    local got = results()
    tide.set_num_threads(threads)
    for i = 1, 4 do assert.is_true(got[i]:equal(want[i])) end
  end)

  it("takes rows of features", function()
    local x, w, b, r, g = leaf(50, 150), leaf(150), leaf(150), leaf(50, 150), tide.randn(50, 150)
    local y, want = tide.batch_norm(x, w, b, r, {activation = "relu"}), (tide.batch_norm(x, w, b) + r):relu()
    local leaves, o = {x, w, b, r}, {grad_outputs = {g}}
    assert(distance(tide.grad({y}, leaves, o), tide.grad({want}, leaves, o)) < 2e-5)
  end)

  it("is made once more from its statistics by batch_norm_apply, bit by bit", function()
    for _, c in ipairs {{3, 5, 7, 6}, {8, 16, 9, 9}, {25, 150, 1, 1}} do
      -- eighths that cancel: every mean is 0, and where x is 1 the result without w and b is rstd
      local half = tide.randint(-9, 10, c):to "f32" / 8
      half[{1, {}, 1, 1}] = 1
      local x0, w, b, r0 = tide.cat({half, -half}, 1), tide.randn(c[2]), tide.randn(c[2]), tide.randn(2 * c[1], c[2], c[3], c[4])
      local function check(x, r)
        local rstd = tide.batch_norm(x)[1]:reshape(c[2], c[3] * c[4]):narrow(2, 1, 1):reshape(c[2])
        for _, activation in ipairs {"none", "relu"} do
          local o = {activation = activation}
          assert.is_true(tide.batch_norm_apply(x, tide.zeros(c[2]), rstd, w, b, r, o):equal(tide.batch_norm(x, w, b, r, o)))
          assert.is_true(tide.batch_norm_apply(x, tide.zeros(c[2]), rstd, w, b, nil, o):equal(tide.batch_norm(x, w, b, nil, o)))
        end
      end
      check(x0, r0)
      if c[3] > 1 then check(tide.channels_last(x0), tide.channels_last(r0)) else check(x0:flatten(2, 4), r0:flatten(2, 4)) end
    end
  end)

  it("has gradients of gradients", function()
    local f = function(x, w, b, r) return tide.batch_norm(x, w, b, r, {activation = "relu"}):square() end
    local function double(...) return tide.randn(...):to "f64" end
    local x, w, b, r = double(3, 2, 2), double(2), double(2), double(3, 2, 2)
    assert.is_true(tide.gradcheck(f, {x, w, b, r}))
    local function by_ops(v) return (tide.batch_norm(v, w, b) + r):relu():square():sum() end
    local got, want = tide.hessian(function(v) return f(v, w, b, r):sum() end, x), tide.hessian(by_ops, x)
    assert(distance({got}, {want}) < 1e-12 and want:abs():max():item() > 1e-3)
  end)

  it("refuses a residual of another shape", function()
    fails_with(function() tide.batch_norm(tide.ones(2, 3), nil, nil, tide.ones(3)) end, "batch_norm", "r and x", "(3)")
    fails_with(function() nn.BatchNorm2d(3)(tide.ones(2, 3, 4, 4), tide.ones(2, 3, 4, 5)) end, "BatchNorm2d", "r and x")
  end)
end)

describe("BatchNorm layers", function()
  it("take the ReLU behind them into their own op, in training and evaluation", function()
    local x = tide.randn(4, 3, 5, 5)
    for _, make in ipairs {function() return nn.BatchNorm2d(3), x end, function() return nn.BatchNorm1d(3), x:flatten(3, 4) end} do
      local norm, input = make()
      local net = nn.Sequential(norm, nn.ReLU())
      for _, training in ipairs {true, false} do
        net:train(training)
        assert(distance({net(input)}, {norm(input):relu()}) < 1e-6)
        for _, row in ipairs(tide.profile(function() net(input) end)) do assert.not_equal("relu", row.op) end
      end
    end
  end)

  it("apply a relu, and add a residual before it", function()
    local x, r = tide.randn(4, 3, 5, 5), tide.randn(4, 3, 5, 5)
    local plain, relu = nn.BatchNorm2d(3), nn.BatchNorm2d {3, activation = "relu"}
    assert(distance({relu(x), relu(x, r)}, {plain(x):relu(), (plain(x) + r):relu()}) < 1e-6)
    assert(distance({relu.running_var}, {plain.running_var}) < 1e-6)
    plain:eval()
    relu:eval()
    assert(distance({relu(x), relu(x, r)}, {plain(x):relu(), (plain(x) + r):relu()}) < 1e-6)
    assert.equal('BatchNorm2d(3, activation = "relu")', tostring(relu))
  end)

  it("BatchNorm1d takes (N, C) and (N, C, L), as PyTorch does", function()
    local norm = nn.BatchNorm1d(2, {affine = false})
    assert(distance({norm(tide.tensor {{1, 10}, {3, 30}})}, {tide.tensor {{-1, -1}, {1, 1}}}) < 1e-4)
    assert.same({2, 2, 3}, {table.unpack(norm(tide.randn(2, 2, 3)):shape())})
    fails_with(function() norm(tide.ones(2, 3)) end, "BatchNorm1d", "(N, 2)", "(2, 3)")
    fails_with(function() norm(tide.ones(2, 2, 3, 3)) end, "BatchNorm1d")
    fails_with(function() norm(tide.ones(1, 2)) end, "more than one value")
  end)
end)
