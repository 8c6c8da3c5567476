-- x[i], x[{…}], x[mask], x[indices], and the same on the left of an assignment.
local tide = require "tide"

local function i64(t) return tide.tensor(t, {dtype = "i64"}) end

-- 2 x 3 x 4: x[i][j][k] = 100 i + 10 j + k
local function numbered()
  local t = {}
  for i = 1, 2 do
    t[i] = {}
    for j = 1, 3 do
      t[i][j] = {}
      for k = 1, 4 do t[i][j][k] = 100 * i + 10 * j + k end
    end
  end
  return tide.tensor(t)
end

describe("x[i]", function()
  local x = numbered()

  it("selects along axis 1, from either end", function()
    assert.equal("(3, 4)", tostring(x[1]:shape()))
    assert.equal(234.0, x[2][3][4]:item())
    assert.equal(234.0, x[-1][-1][-1]:item())
    assert.equal(211.0, x[2.0][1][1]:item())
  end)

  it("is a view", function()
    local y = numbered()
    y[1]:zero_()
    assert.equal(0.0, y[1]:sum():item())
    assert.equal(211.0, y[2][1][1]:item())
  end)

  it("outside is an error that says what there is", function()
    fails_with(function() return x[3] end, "index 3", "axis 1", "1 .. 2")
    fails_with(function() return x[0] end, "index 0", "count from 1")
    fails_with(function() return x[-3] end, "index -3")
    fails_with(function() return tide.tensor(1)[1] end, "no axes")
    fails_with(function() return x[1.5] end, "got 1.5")
    fails_with(function() return x[print] end, "a function")
  end)
end)

describe("x[{…}]", function()
  local x = numbered()

  it("selects one element of each axis", function()
    assert.equal(123.0, x[{1, 2, 3}]:item())
    assert.equal("(4)", tostring(x[{1, 2}]:shape()))
    assert.equal("(2, 3, 4)", tostring(x[{}]:shape()))
  end)

  it("takes ranges, both ends included", function()
    assert.same({{122, 123}, {132, 133}}, x[{1, {2, 3}, {2, 3}}]:totable())
    assert.same({111, 113}, x[{1, 1, {1, -1, 2}}]:totable())
    assert.same({{131, 132, 133, 134}}, x[{1, {-1, -1}}]:totable())
    assert.equal("(2, 1, 4)", tostring(x[{{}, {2, 2}}]:shape()))
    assert.equal("(0)", tostring(x[{1, 1, {2, 1}}]:shape()))
    assert.equal("(0)", tostring(x[{1, 1, {5, 4}}]:shape()))
  end)

  it("takes \"...\" and new axes", function()
    assert.same({{111, 121, 131}, {211, 221, 231}}, x[{"...", 1}]:totable())
    assert.equal("(3)", tostring(x[{1, "...", 1}]:shape()))
    assert.equal("(1, 2, 3, 4)", tostring(x[{tide.newaxis, "..."}]:shape()))
    assert.equal("(2, 3, 1, 4)", tostring(x[{{}, {}, tide.newaxis}]:shape()))
    assert.equal("(2, 3, 4)", tostring(x[{"...", {}, {}, {}}]:shape()))
  end)

  it("refuses what does not fit", function()
    fails_with(function() return x[{1, 1, 1, 1}] end, "4 axes", "has 3")
    fails_with(function() return x[{{1, 3}}] end, "{1, 3}", "axis 1", "1 .. 2")
    fails_with(function() return x[{{0, 1}}] end, "{0, 1}")
    fails_with(function() return x[{{1}}] end, "{first, last}")
    fails_with(function() return x[{{1, 2, 0}}] end, "step")
    fails_with(function() return x[{{1, "2"}}] end, "a string")
    fails_with(function() return x[{"..", 1}] end, "a string")
    fails_with(function() return x[{"...", "..."}] end, "twice")
    fails_with(function() return x[{a = 1}] end, "names")
    fails_with(function() return x[{1, 4}] end, "index 4", "axis 1")
  end)

  it("is differentiable", function()
    local w = numbered():requires_grad_()
    w[{2, {1, 2}, -1}]:sum():backward()
    assert.equal(2.0, w.grad:sum():item())
    assert.same({0, 0, 0, 1}, w.grad[{2, 1}]:totable())
  end)
end)

describe("x[mask]", function()
  local x = tide.tensor {{1, 2, 3}, {4, 5, 6}}

  it("gives the elements where it is true", function()
    assert.same({4, 5, 6}, x[x:gt(3)]:totable())
    assert.same({}, x[x:gt(9)]:totable())
  end)

  it("over leading axes gives rows", function()
    assert.same({{4, 5, 6}}, x[tide.tensor {false, true}]:totable())
    assert.same({{2}, {5}}, x[{{}, tide.tensor {false, true, false}}]:totable())
    fails_with(function() return x[tide.tensor {true, false, true}] end, "3", "2")
  end)
end)

describe("x[indices]", function()
  local x = numbered()

  it("gives slices in that order", function()
    assert.same({{{211}, {111}, {211}}}, {x[i64 {2, 1, 2}][{{}, 1, {1, 1}}]:totable()})
    assert.same({134, 132}, x[{1, 3, i64 {4, 2}}]:totable())
    assert.same({134, 131}, x[{1, 3, i64 {-1, 1}}]:totable())
    assert.equal("(2, 2, 2, 4)", tostring(x[{{}, i64 {{1, 2}, {3, 1}}}]:shape()))
    assert.equal(231.0, x[{{}, i64 {{1, 2}, {3, 1}}}][{2, 2, 1, 1}]:item())
  end)

  it("of several axes pairs them", function()
    assert.same({111, 232}, x[{i64 {1, 2}, i64 {1, 3}, i64 {1, 2}}]:totable())
    assert.same({{111, 121, 131}, {214, 224, 234}}, x[{i64 {1, 2}, {}, i64 {1, 4}}]:totable())
    assert.same({{112, 134}, {212, 234}}, x[{{}, i64 {1, 3}, i64 {2, 4}}]:totable())
  end)

  it("are whole numbers inside the axis", function()
    fails_with(function() return x[tide.tensor {1, 2}] end, "integers", "f32")
    fails_with(function() return x[i64 {3}] end, "3")
    fails_with(function() return x[i64 {0}] end)
  end)

  it("are differentiable, and repeated ones add up", function()
    local w = tide.tensor({1, 2, 3}, {requires_grad = true})
    w[i64 {3, 3, 1}]:sum():backward()
    assert.same({1, 0, 2}, w.grad:totable())
  end)
end)

describe("assignment", function()
  it("of a number, a tensor or a table to a part", function()
    local x = tide.zeros(2, 3)
    x[1] = 5
    x[{2, {2, 3}}] = tide.tensor {7, 8}
    assert.same({{5, 5, 5}, {0, 7, 8}}, x:totable())
    x[{{}, 1}] = {1, 2}
    assert.same({{1, 5, 5}, {2, 7, 8}}, x:totable())
    x[{{}, {2, 3}}] = tide.tensor {{0}, {9}}
    assert.same({{1, 0, 0}, {2, 9, 9}}, x:totable())
    x[{}] = 4
    assert.same({{4, 4, 4}, {4, 4, 4}}, x:totable())
    local m = tide.tensor {true, true}
    m[1] = false
    assert.same({false, true}, m:totable())
  end)

  it("by a mask", function()
    local x = tide.tensor {{1, 2, 3}, {4, 5, 6}}
    x[x:gt(4)] = 0
    assert.same({{1, 2, 3}, {4, 0, 0}}, x:totable())
    x[x:eq(0)] = tide.tensor {7, 8}
    assert.same({{1, 2, 3}, {4, 7, 8}}, x:totable())
    x[tide.tensor {true, false}] = -1
    assert.same({{-1, -1, -1}, {4, 7, 8}}, x:totable())
    x:t()[tide.tensor {false, false, true}] = tide.tensor {10, 20}
    assert.same({{-1, -1, 10}, {4, 7, 20}}, x:totable())
    fails_with(function() x[tide.tensor {true, false, true}] = 0 end, "mask")
  end)

  it("by indices", function()
    local x = tide.zeros(3, 2)
    x[i64 {3, 1}] = tide.tensor {{1, 2}, {3, 4}}
    assert.same({{3, 4}, {0, 0}, {1, 2}}, x:totable())
    x[{i64 {1, 2}, 2}] = 9
    assert.same({{3, 9}, {0, 9}, {1, 2}}, x:totable())
    fails_with(function() x[{i64 {1}, i64 {1}}] = 0 end, "one index tensor")
    fails_with(function() x[i64 {4}] = 0 end, "4")
  end)

  it("outside, or of what does not fit, is an error and changes nothing", function()
    local x = tide.zeros(2, 3)
    fails_with(function() x[3] = 1 end, "index 3")
    fails_with(function() x[1] = tide.ones(2) end, "(2)")
    fails_with(function() x[1] = "a" end, "a string")
    fails_with(function() x[{1, 1}] = {1, {2}} end, "[2]")
    assert.equal(0.0, x:sum():item())
  end)

  it("to a part is recorded", function()
    local w = tide.tensor({2, 3}, {requires_grad = true})
    local y = tide.zeros(3)
    y[{{1, 2}}] = w * w
    y[3] = w[1]
    y:sum():backward()
    assert.same({5, 6}, w.grad:totable())
  end)
end)
