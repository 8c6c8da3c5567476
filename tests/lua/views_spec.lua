-- Views share memory, also when they are written; ops take any strides, and shapes broadcast.
local tide = require "tide"
local core = require "tide.core"

local T = function(values, dtype) return tide.tensor(values, {dtype = dtype}) end
local same = assert_close
local function shape_is(expected, x) assert.equal(expected, tostring(x:shape())) end

--- 1, 2, 3, … in a shape.
local function count(...)
  local n = 1
  for _, d in ipairs {...} do n = n * d end
  return tide.arange(1, n + 1):reshape(...)
end

describe("a view shares memory:", function()
  local cases = {
    view = {function(x) return x:view(3, 2) end, {{1, 2}, {3, 4}, {5, 6}}},
    ["view with -1"] = {function(x) return x:view(-1) end, {1, 2, 3, 4, 5, 6}},
    reshape = {function(x) return x:reshape {3, 2} end, {{1, 2}, {3, 4}, {5, 6}}},
    flatten = {function(x) return x:flatten() end, {1, 2, 3, 4, 5, 6}},
    transpose = {function(x) return x:transpose(1, 2) end, {{1, 4}, {2, 5}, {3, 6}}},
    ["transpose from the end"] = {function(x) return x:transpose(-1, -2) end, {{1, 4}, {2, 5}, {3, 6}}},
    t = {function(x) return x:t() end, {{1, 4}, {2, 5}, {3, 6}}},
    permute = {function(x) return x:permute {2, 1} end, {{1, 4}, {2, 5}, {3, 6}}},
    squeeze = {function(x) return x:unsqueeze(1):squeeze() end, {{1, 2, 3}, {4, 5, 6}}},
    unsqueeze = {function(x) return x:unsqueeze(-1) end, {{{1}, {2}, {3}}, {{4}, {5}, {6}}}},
    narrow = {function(x) return x:narrow(2, 2, 2) end, {{2, 3}, {5, 6}}},
    select = {function(x) return x:select(2, 3) end, {3, 6}},
    slice = {function(x) return x:slice(2, 1, 3, 2) end, {{1, 3}, {4, 6}}},
    diagonal = {function(x) return x:diagonal() end, {1, 5}},
    ["diagonal above"] = {function(x) return x:diagonal(1) end, {2, 6}},
    unfold = {function(x) return x:unfold(2, 2, 1) end, {{{1, 2}, {2, 3}}, {{4, 5}, {5, 6}}}},
    split = {function(x) return x:split({1, 2}, 2)[2] end, {{2, 3}, {5, 6}}},
    ["split in equal parts"] = {function(x) return x:split(2, 2)[2] end, {{3}, {6}}},
    detach = {function(x) return x:detach() end, {{1, 2, 3}, {4, 5, 6}}},
    expand = {function(x) return x:select(1, 2):expand(2, 3) end, {{4, 5, 6}, {4, 5, 6}}},
  }
  for name, case in pairs(cases) do
    it(name, function()
      local x = count(2, 3)
      local y = case[1](x)
      same(case[2], y)
      assert.is_true(core.same_storage(x, y))
      x:zero_()
      assert.equal(0, y:abs():sum():item())
    end)
  end
  it("what is written to it is seen in its base", function()
    local x = count(2, 3)
    x:t():select(1, 2):fill_(9)
    same({{1, 9, 3}, {4, 9, 6}}, x)
    x:narrow(2, 1, 2):add_(T {10, 20})
    same({{11, 29, 3}, {14, 29, 6}}, x)
    x:diagonal():copy_(T {0, 1})
    same({{0, 29, 3}, {14, 1, 6}}, x)
    x:slice(2, 1, 3, 2):mul_(2)
    same({{0, 29, 6}, {28, 1, 12}}, x)
    x:transpose(1, 2):copy_(count(3, 2))
    same({{1, 3, 5}, {2, 4, 6}}, x)
  end)
  it("copies do not", function()
    local x = count(2, 3)
    local copies = {x:clone(), x:copy(), x:t():contiguous(), x:t():reshape(6), x:flip(1), x:roll(1, 2), x:tile {1, 2}, x:to "f64",
                    tide.cat {x, x}, tide.stack {x}, x:pad {0, 0}, x + 0}
    local sums = {}
    for i, c in ipairs(copies) do sums[i] = c:sum():item() end
    x:zero_()
    for i, c in ipairs(copies) do assert.equal(sums[i], c:sum():item()) end
  end)
  it("view refuses what only a copy could give, reshape copies", function()
    local x = count(2, 3):t()
    fails_with(function() return x:view(6) end, "view", "reshape")
    same({1, 4, 2, 5, 3, 6}, x:reshape(6))
    fails_with(function() return x:view(4, 2) end, "view", "(4, 2)")
    same({{1, 4, 2}, {5, 3, 6}}, x:reshape(2, -1))
  end)
  it("an expanded tensor is read, but not written", function()
    local x = T {{1}, {2}}
    same({{1, 1, 1}, {2, 2, 2}}, x:expand(2, 3))
    same({{1, 1, 1}, {2, 2, 2}}, x:expand(-1, 3))
    fails_with(function() x:expand(2, 3):add_(1) end, "add")
    fails_with(function() x:expand(2, 3):fill_(1) end)
    fails_with(function() return x:expand(3, 3) end, "expand", "3")
  end)
  it("so does an overlap of windows", function()
    fails_with(function() count(4):unfold(1, 2, 1):add_(1) end, "add")
  end)
end)

describe("moving elements:", function()
  local x = count(2, 3)
  it("flip, roll and tile", function()
    same({{6, 5, 4}, {3, 2, 1}}, x:flip {1, 2})
    same({{3, 2, 1}, {6, 5, 4}}, x:flip(-1))
    same({{3, 1, 2}, {6, 4, 5}}, x:roll(1, 2))
    same({{2, 3, 1}, {5, 6, 4}}, x:roll(-1, 2))
    same({{2, 3, 1}, {5, 6, 4}}, x:roll(-7, -1))
    same({1, 2, 1, 2}, T {1, 2}:tile {2})
    same({{1, 2}, {1, 2}}, T {1, 2}:tile {2, 1})
  end)
  it("cat, stack and pad", function()
    same({{1, 2, 3}, {4, 5, 6}, {1, 2, 3}, {4, 5, 6}}, tide.cat {x, x})
    same({{1, 2, 3, 0}, {4, 5, 6, 0}}, tide.cat({x, tide.zeros(2, 1)}, 2))
    same({{1, 2, 3}, {4, 5, 6}}, tide.cat({x, tide.zeros(2, 0)}, -1))
    same({{1, 3}, {2, 4}}, tide.stack({T {1, 2}, T {3, 4}}, 2))
    same({{1, 2}, {3, 4}}, tide.stack({T {1, 2}, T {3, 4}}, -2))
    assert.equal("f64", tide.cat {x, T({{1, 2, 3}}, "f64")}.dtype)
    same({{7, 1, 2, 3, 7, 7}, {7, 4, 5, 6, 7, 7}}, x:pad({1, 2}, 7))
    same({{0, 0}, {1, 0}, {2, 0}}, T {{1}, {2}}:pad {0, 1, 1, 0})
  end)
  it("split takes the rest last", function()
    local parts = tide.arange(0, 5):split(2)
    assert.equal(3, #parts)
    same({4}, parts[3])
    fails_with(function() return x:split({1, 1}, 2) end, "split", "(2, 3)")
  end)
end)

describe("broadcasting", function()
  it("stretches axes of extent 1 and adds leading ones", function()
    same({{11, 12}, {21, 22}}, T {{10}, {20}} + T {1, 2})
    same({{2, 4}, {6, 8}}, T {{1, 2}, {3, 4}} * T {{2}}:squeeze(1))
    shape_is("(4, 2, 3)", tide.ones(4, 1, 3) + tide.ones(2, 1))
    shape_is("(0, 3)", tide.ones(0, 1) + tide.ones(3))
    same({3, 3}, tide.tensor(1) + T {2, 2})
    same({{1, 9}, {3, 9}}, T {{1, 2}, {3, 4}}:masked_fill(T({false, true}, "bool"), 9))
    same({{1, 0}, {0, 4}}, tide.where(tide.eye(2):to "bool", T {{1, 2}, {3, 4}}, 0))
  end)
  it("refuses what does not fit, with both shapes", function()
    for _, op in ipairs {"add", "mul", "maximum", "pow", "eq", "floor_divide"} do
      fails_with(function() return tide[op](tide.ones(2, 3), tide.ones(2, 4)) end, op, "(2, 3)", "(2, 4)")
    end
    fails_with(function() tide.ones(3):add_(tide.ones(2, 3)) end, "add", "(2, 3)")
  end)
  it("of batches in matmul", function()
    shape_is("(5, 4, 2, 6)", tide.ones(5, 1, 2, 3):matmul(tide.ones(4, 3, 6)))
    shape_is("(2)", tide.ones(2, 3):matmul(tide.ones(3)))
    shape_is("(4, 6)", tide.ones(3):matmul(tide.ones(4, 3, 6)))
    shape_is("()", tide.ones(3):matmul(tide.ones(3)))
    same({{0, 0}}, tide.ones(1, 0):matmul(tide.ones(0, 2)))
    fails_with(function() return tide.tensor(1):matmul(tide.ones(3)) end, "matmul")
  end)
end)

describe("any strides give the same as a dense copy:", function()
  tide.manual_seed(3)
  local base = tide.rand(6, 10, 8, {dtype = "f64"}) + 0.1
  local variants = {
    permuted = base:permute {3, 1, 2},
    stepped = base:slice(2, 1, 10, 3),
    expanded = base:narrow(1, 2, 1):expand(4, 10, 8),
    windows = base:unfold(3, 3, 2),
    ["a narrow middle"] = base:narrow(2, 3, 2):narrow(3, 2, 5),
  }
  local ops = {
    add = function(x) return x + x end, ["add a row"] = function(x) return x + x:select(1, 1) end, exp = tide.exp, sum = tide.sum,
    ["sum 1"] = function(x) return x:sum(1) end, ["sum -1"] = function(x) return x:sum(-1) end,
    ["sum 1, 3"] = function(x) return x:sum {1, 3} end, var = function(x) return x:var(2) end,
    argmax = function(x) return x:argmax(2) end, cumsum = function(x) return x:cumsum(2) end,
    sort = function(x) return (x:sort(2)) end, softmax = function(x) return x:softmax(2) end,
    matmul = function(x) return x:matmul(x:transpose(-1, -2)) end, flip = function(x) return x:flip {1} end,
    cat = function(x) return tide.cat({x, x}, 2) end, pad = function(x) return x:pad {1, 1} end,
    where = function(x) return tide.where(x:gt(0.5), x, -x) end, cast = function(x) return x:to "f32" end,
    index = function(x) return x:index_select(tide.tensor({2, 1}, {dtype = "i64"}), 2) end, clone = function(x) return x:clone() end,
    norm = function(x) return x:norm {axes = -1, p = 3} end, clamp = function(x) return x:clamp(0.3, 0.6) end,
    any = function(x) return x:gt(0.9):any(1) end, one = function(x) return x:reshape(-1) end,
  }
  for what, x in pairs(variants) do
    it(what, function()
      assert.is_false(x:is_contiguous())
      local dense = x:clone()
      assert.is_true(dense:is_contiguous())
      for name, f in pairs(ops) do
        local a, b = f(dense), f(x)
        assert(a:shape() == b:shape() and a:to "f64":allclose(b:to "f64", {rtol = 1e-12, atol = 1e-12}), name)
      end
    end)
  end
  it("and in place", function()
    for what, make in pairs {
      transposed = function(x) return x:t() end, stepped = function(x) return x:slice(2, 1, 6, 2) end,
      column = function(x) return x:select(2, 2) end,
    } do
      local a = count(4, 6)
      local v = make(a)
      local want = (v:clone() * 2 + 1):exp():clamp(0, 50)
      v:mul_(2):add_(1):exp_():clamp_(0, 50)
      assert(v:allclose(want), what)
    end
  end)
end)

describe("in place", function()
  it("returns the tensor itself and keeps its dtype", function()
    local x = T {1, 2}
    assert.is_true(rawequal(x, x:add_(1)))
    same({2, 3}, x)
    local i = tide.tensor({5, 7}, {dtype = "i64"})
    i:add_(2):mul_(3)
    same({21, 27}, i)
    assert.equal("i64", i.dtype)
    fails_with(function() i:add_(0.5) end, "add", "i64")
    fails_with(function() tide.tensor({1}, {dtype = "i64"}):div_(2) end, "div")
  end)
  it("of a tensor with itself, also when the memory overlaps", function()
    local x = T {1, 2, 3}
    x:mul_(x)
    same({1, 4, 9}, x)
    local y = count(2, 2)
    y:add_(y:t())
    same({{2, 5}, {5, 8}}, y)
    local z = count(5)
    z:narrow(1, 2, 4):copy_(z:narrow(1, 1, 4))
    same({1, 1, 2, 3, 4}, z)
  end)
end)
