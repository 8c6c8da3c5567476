local tide = require "tide"

local function leaf(v) return tide.tensor(v, {dtype = "f64", requires_grad = true}) end

describe("backward", function()
  it("fills .grad of leaves", function()
    local x = leaf {1, 2, 3};
    (x * x):sum():backward()
    assert_close({2, 4, 6}, x.grad)
  end)

  it("adds to a gradient that is there, until it is cleared", function()
    local x = leaf {2}
    for _ = 1, 3 do (x * 5):sum():backward() end
    assert_close({15}, x.grad)
    x.grad = nil
    assert.is_nil(x.grad)
  end)

  it("never lets two gradients share memory", function()
    local a, b = leaf {1, 1}, leaf {1, 1}
    local d = a * 2
    local c = a + b
    local loss = c:sum() + d:sum()
    loss:backward()
    assert_close({1, 1}, b.grad)
    assert_close({3, 3}, a.grad)
    a.grad:add_(10)
    assert_close({1, 1}, b.grad)
  end)

  it("meets a result that is used twice once", function()
    local x = leaf {3}
    local y = x * x
    local z = y * y + y
    z:sum():backward()
    assert_close({4 * 27 + 6}, x.grad)
  end)

  it("needs a seed for more than one element", function()
    local x = leaf {1, 2}
    fails_with(function() (x * 2):backward() end, "seed", "(2)")
    local y = x * 2
    y:backward(tide.tensor({1, 10}, {dtype = "f64"}))
    assert_close({2, 20}, x.grad)
  end)

  it("refuses what depends on nothing that requires a gradient", function()
    fails_with(function() tide.ones(1):backward() end, "does not depend on anything that requires a gradient")
  end)

  it("runs once, unless the graph is retained", function()
    local x = leaf {2}
    local y = (x * x):sum()
    y:backward(nil, {retain_graph = true})
    y:backward()
    assert_close({8}, x.grad)
    fails_with(function() y:backward() end, "retain_graph")
  end)

  it("reduces gradients of broadcast operands", function()
    local a, b, c = leaf {{1, 2, 3}, {4, 5, 6}}, leaf {1, 2, 3}, leaf(2);
    (a * b + c):sum():backward()
    assert_close({5, 7, 9}, b.grad)
    assert_close(6, c.grad)
  end)

  it("gives gradients in the dtype of their leaf", function()
    local x = tide.ones(2, {requires_grad = true});
    (x * leaf {1, 2}):sum():backward()
    assert.equal("f32", x.grad.dtype)
  end)

  it("walks and releases a chain of a million ops", function()
    local x = tide.ones(1, {requires_grad = true})
    local y = x
    for _ = 1, sanitized and 20000 or 1000000 do y = y + 0 end
    y:sum():backward()
    assert_close({1}, x.grad)
  end)

  it("keeps the gradient of a result that asks for it", function()
    local x = leaf {1, 2}
    local y = x * 3
    y:retain_grad();
    (y * y):sum():backward()
    assert_close({6, 12}, y.grad)
  end)
end)

describe("no_grad", function()
  it("records nothing and restores the mode after an error", function()
    local x = leaf {1}
    local y = tide.no_grad(function() return x * 2 end)
    assert.is_false(y.requires_grad)
    pcall(tide.no_grad, function() error "stop" end)
    assert.is_true((x * 2).requires_grad)
  end)

  it("hands error objects through unchanged", function()
    local object = {}
    local _, got = pcall(tide.no_grad, function() error(object) end)
    assert.equal(object, got)
  end)
end)

describe("changes in place", function()
  it("of a saved tensor are an error in backward, never a wrong gradient", function()
    local x = leaf {1, 2}
    local y = x * 2
    local z = (y * y):sum()
    y:add_(1)
    fails_with(function() z:backward() end, "changed in place", "mul")
  end)

  it("of a leaf are refused while recording", function()
    local x = leaf {1}
    fails_with(function() x:add_(1) end, "leaf", "no_grad")
    tide.no_grad(function() x:add_(1) end)
    assert_close({2}, x)
  end)

  it("are recorded", function()
    local x = leaf {1, 2}
    local y = x * 2
    y:mul_(3)
    y:sum():backward()
    assert_close({6, 6}, x.grad)
  end)

  it("that write what backward needs later are recorded with the new values", function()
    local x = leaf {0.5}
    local y = x * 1
    y:exp_()
    y:sum():backward()
    assert_close({math.exp(0.5)}, x.grad)
  end)

  it("of a view of a recorded tensor are one clear error", function()
    local x = leaf {{1, 2}, {3, 4}}
    local y = x * 2
    fails_with(function() y[1]:add_(1) end, "view")
  end)

  it("by assignment to elements are recorded", function()
    local x, v = leaf {{1, 2}, {3, 4}}, leaf {5, 6}
    local y = x * 2
    y[1] = v
    y[{2, 1}] = 0;
    (y * y):sum():backward()
    assert_close({{0, 0}, {0, 32}}, x.grad)
    assert_close({10, 12}, v.grad)
  end)

  it("make views that were taken before stale", function()
    local x = leaf {1, 2, 3}
    local y = x * 2
    local v = y:narrow(1, 1, 2)
    y:mul_(2)
    fails_with(function() return (v * 2):sum() end, "view", "in place")
  end)
end)

describe("grad", function()
  it("gives gradients of results for inputs and leaves .grad alone", function()
    local x, y = leaf {2}, leaf {3}
    local g = tide.grad({(x * x * y):sum()}, {x, y})
    assert_close({12}, g[1])
    assert_close({4}, g[2])
    assert.is_nil(x.grad)
  end)

  it("gives gradients for results on the way", function()
    local x = leaf {2}
    local h = x * 3
    local g = tide.grad({(h * h):sum()}, {h})
    assert_close({12}, g[1])
  end)

  it("names an input that was not used", function()
    local x, y = leaf {2}, leaf {3}
    fails_with(function() tide.grad({(x * 2):sum()}, {x, y}) end, "input 2", "allow_unused")
    local g = tide.grad({(x * 2):sum()}, {x, y}, {allow_unused = true})
    assert.is_falsy(g[2])
  end)

  it("differentiates gradients: the third derivative of x^4", function()
    local x = leaf {2}
    local y = (x ^ 4):sum()
    local g1 = tide.grad({y}, {x}, {create_graph = true})[1]
    local g2 = tide.grad({g1:sum()}, {x}, {create_graph = true})[1]
    local g3 = tide.grad({g2:sum()}, {x})[1]
    assert_close({32}, g1); assert_close({48}, g2); assert_close({48}, g3)
  end)

  it("differentiates fused backwards through the decomposition", function()
    local x = leaf {{0.1, 0.7, -0.3}, {1.0, 0.2, 0.5}}
    local t = tide.tensor({2, 3}, {dtype = "i64"})
    assert.is_true(tide.gradcheck(function(v) return tide.softmax_cross_entropy(v, t) end, {x}, {second = true}))
    local w, b = leaf {1.5, 0.5, 1.0}, leaf {0.1, 0.2, 0.3}
    assert.is_true(tide.gradcheck(function(v, s, o) return tide.layer_norm(v, s, o) end, {x, w, b}, {second = true}))
  end)

  it("takes the same tensor in both places of a fused op", function()
    local x = leaf {{0.3, 0.7}, {0.2, 0.9}}
    assert.is_true(tide.gradcheck(function(v) return tide.linear(v, v) end, {x}, {second = true}))
  end)
end)

describe("gradcheck", function()
  it("agrees with central differences", function()
    assert.is_true(tide.gradcheck(function(x, y) return (x * y):tanh():sum() end, {leaf {0.3, -0.2}, leaf {1, 2}}))
  end)
end)

describe("forward mode and matrices of derivatives", function()
  it("jvp is the derivative along a direction", function()
    local _, t = tide.jvp(function(x) return x * x end, {leaf {1, 2, 3}}, {tide.tensor({1, 0, 2}, {dtype = "f64"})})
    assert_close({2, 0, 12}, t)
  end)
  it("jacobian and hessian", function()
    assert_close({{2, 0}, {0, 4}}, tide.jacobian(function(x) return x * x end, leaf {1, 2}))
    assert_close({{2, 1}, {1, 0}}, tide.hessian(function(x) return x[1] * x[1] + x[1] * x[2] end, leaf {1, 2}))
  end)
end)

describe("anomaly mode", function()
  it("names the first op that made a NaN", function()
    local before = tide.set_anomaly(true)
    local ok, message = pcall(function() return (leaf {-1}):log() end)
    tide.set_anomaly(before)
    assert.is_false(ok)
    assert.truthy(message:find("log made a NaN", 1, true))
  end)
end)
