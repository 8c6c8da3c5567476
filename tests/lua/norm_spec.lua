-- layer_norm and add_layer_norm: kernels against definitions, at sizes beside those of vectors and of rows taken together.
-- Values against PyTorch are in reference_spec.lua and sequence_ref_spec.lua.
local tide = require "tide"

--- Results of f on inputs, and the gradients of all inputs where each element of each result has a weight of its own.
local function everything(f, inputs, options)
  local leaves = {}
  for i, x in ipairs(inputs) do leaves[i] = x:detach():clone():requires_grad_() end
  local results = {f(leaves[1], leaves[2], leaves[3], leaves[4], options)}
  local loss = 0
  for _, y in ipairs(results) do loss = loss + (y * tide.arange(1, y:numel() + 1):reshape(y:shape()):cos()):sum() end
  for _, g in ipairs(tide.grad({loss}, leaves)) do results[#results + 1] = g end
  return results
end

local function agree(expected, got, tolerance)
  assert.equal(#expected, #got)
  for i, want in ipairs(expected) do
    assert(want:allclose(got[i], {rtol = tolerance, atol = tolerance}),
      ("%d: expected %s, got %s"):format(i, tostring(want), tostring(got[i])))
  end
end

local SIZES = {{1, 1}, {1, 2}, {3, 3}, {4, 8}, {5, 15}, {2, 17}, {7, 64}, {70, 33}, {130, 128}, {3, 515}, {9, 1030}, {4100, 16}}

describe("layer_norm", function()
  it("agrees with its definition", function()
    tide.manual_seed(1)
    for _, s in ipairs(SIZES) do
      local inputs = {tide.randn(s[1], s[2]) * 3 + 2, tide.randn(s[2]), tide.randn(s[2])}
      local function check(n)
        local given = table.move(inputs, 1, n, 1, {})
        local function f(x, w, b) return tide.layer_norm(x, w, b, {dims = 1, eps = 1e-3}) end
        agree(by_definition(function() return everything(f, given) end), everything(f, given), 2e-3)
      end
      check(1)
      check(2)
      check(3)
    end
  end)

  it("keeps the variance of values far from zero", function()
    local x = tide.randn(4, 256)
    local want, got = tide.layer_norm(x), tide.layer_norm(x + 1000)
    assert(want:allclose(got, {rtol = 1e-3, atol = 1e-3}))
  end)
end)

describe("add_layer_norm", function()
  it("agrees with its definition", function()
    tide.manual_seed(2)
    for _, s in ipairs(SIZES) do
      local inputs = {tide.randn(s[1], s[2]), tide.randn(s[1], s[2]), tide.randn(s[2]), tide.randn(s[2])}
      for n = 2, 4 do
        local given = table.move(inputs, 1, n, 1, {})
        local options = {dims = 1, eps = 1e-3}
        agree(by_definition(function() return everything(tide.add_layer_norm, given, options) end),
          everything(tide.add_layer_norm, given, options), 2e-3)
      end
    end
  end)

  it("is the sum, and the norm of it", function()
    local x, r, w, b = tide.randn(3, 5, 8), tide.randn(3, 5, 8), tide.randn(5, 8), tide.randn(5, 8)
    local y, sum = tide.add_layer_norm(x, r, w, b, {dims = 2})
    assert(sum:equal(x + r))
    assert(y:equal(tide.layer_norm(x + r, w, b, {dims = 2})))
  end)

  it("has gradients where only one of its results is used", function()
    local x, r = tide.randn(3, 8):requires_grad_(), tide.randn(3, 8):requires_grad_()
    local _, sum = tide.add_layer_norm(x, r)
    local g = tide.grad({(sum * 2):sum()}, {x, r})
    assert_close(tide.full({3, 8}, 2):totable(), g[1])
    assert_close(tide.full({3, 8}, 2):totable(), g[2])
    local y = tide.add_layer_norm(x, r)
    g = tide.grad({(y * y * y):sum()}, {x, r})
    local z = (x + r):detach():requires_grad_()
    local want = tide.grad({(tide.layer_norm(z) ^ 3):sum()}, {z})[1]
    assert(want:allclose(g[1], {rtol = 1e-4, atol = 1e-5}))
    assert(g[1]:equal(g[2]))
  end)

  it("gives the same bits on one thread and on several", function()
    tide.manual_seed(3)
    local inputs = {tide.randn(700, 96), tide.randn(700, 96), tide.randn(96), tide.randn(96)}
    local before = tide.get_num_threads()
    tide.set_num_threads(1)
    local one = everything(tide.add_layer_norm, inputs)
    tide.set_num_threads(2)
    local two = everything(tide.add_layer_norm, inputs)
    tide.set_num_threads(before)
    for i, want in ipairs(one) do assert(want:equal(two[i]), "result " .. i) end
  end)

  it("has right gradients, first and second", function()
    local function d(...) return tide.randn(...):to "f64" end
    local function f(...)
      local y, sum = tide.add_layer_norm(...)
      return y * y + sum
    end
    assert(tide.gradcheck(f, {d(2, 4), d(2, 4), d(4), d(4)}))
    assert(tide.gradcheck(f, {d(2, 4), d(2, 4), d(4), d(4)}, {second = true, atol = 1e-4}))
  end)

  it("says what is wrong with its inputs", function()
    local x = tide.randn(2, 4)
    fails_with(function() tide.add_layer_norm(x, tide.randn(4)) end, "add_layer_norm", "(4)", "(2, 4)")
    fails_with(function() tide.add_layer_norm(x, x, tide.randn(3)) end, "add_layer_norm: w: expected shape (4), got (3)")
    fails_with(function() tide.add_layer_norm(x, x, nil, nil, {dims = 3}) end, "add_layer_norm: dims: expected 1 to the 2 axes")
    fails_with(function() tide.add_layer_norm(tide.zeros(2, 0), tide.zeros(2, 0)) end, "no values to take a mean of")
  end)
end)
