-- Optimizers and schedulers as scripts use them; their numbers are in reference_spec.lua.
local tide = require "tide"
local nn, optim = tide.nn, tide.optim

local function bowl(p) return (p - 3):square():sum() end

--- Steps on the bowl; the parameter's values after them.
local function run(optimizer, p, steps)
  for _ = 1, steps do
    optimizer:zero_grad()
    bowl(p):backward()
    optimizer:step()
  end
  return p:totable()
end

describe("an optimizer", function()
  it("finds the bottom of a bowl", function()
    for name, opts in pairs {SGD = {lr = 0.1}, Adam = {lr = 0.3}, AdamW = {lr = 0.3, weight_decay = 0}, RMSprop = {lr = 0.05}} do
      local p = nn.Parameter(tide.tensor {0.0, 10.0})
      local values = run(optim[name](({p}), opts), p, 200)
      assert.near(3, values[1], 0.05, name)
      assert.near(3, values[2], 0.05, name)
    end
  end)

  it("does one step of SGD by the book", function()
    local p = nn.Parameter(tide.tensor {1.0})
    local sgd = optim.SGD({p}, {lr = 0.5, momentum = 0.9, weight_decay = 0.1})
    ;(p * 2):sum():backward()
    sgd:step()
    assert.near(1 - 0.5 * 2.1, p:item(), 1e-6)
  end)

  it("takes a module, a list, one tensor, or groups with options of their own", function()
    local a, b = nn.Linear(1, 1), nn.Linear(1, 1)
    assert.equal(2, #optim.SGD(a).param_groups[1].params)
    assert.equal(1, #optim.SGD(a.weight).param_groups[1].params)
    local sgd = optim.SGD({{params = a:parameters(), lr = 0.5}, {params = b}}, {lr = 0.25})
    assert.equal(0.5, sgd.param_groups[1].lr)
    assert.equal(0.25, sgd.param_groups[2].lr)
    for _, p in ipairs {a.weight, b.weight} do tide.no_grad(function() p:fill_(1) end) end
    ;(a.weight + b.weight):sum():backward()
    sgd:step()
    assert.near(0.5, a.weight:item(), 1e-6)
    assert.near(0.75, b.weight:item(), 1e-6)
  end)

  it("reads and sets options by name, of all groups or of one", function()
    local sgd = optim.SGD({{params = nn.Linear(1, 1), lr = 0.5}, {params = nn.Linear(1, 1)}}, {lr = 0.25})
    assert.equal(0.5, sgd.lr)
    sgd.lr = 0.125
    assert.equal(0.125, sgd.param_groups[2].lr)
    sgd.param_groups[1].weight_decay = 0.5
    assert.equal(0.5, sgd.weight_decay)
    fails_with(function() sgd.lr = -1 end, "lr", ">= 0")
    fails_with(function() sgd.param_groups[1].lrr = 1 end, "lrr")
  end)

  it("uses a new learning rate at once", function()
    local p = nn.Parameter(tide.tensor {0.0})
    local sgd = optim.SGD({p}, {lr = 1})
    p:sum():backward()
    sgd:step()
    sgd.lr = 0.25
    sgd:step()
    assert.near(-1.25, p:item(), 1e-6)
  end)

  it("leaves parameters without a gradient alone", function()
    local a, b = nn.Parameter(tide.ones(1)), nn.Parameter(tide.ones(1))
    local adam = optim.Adam({a, b}, {lr = 0.1, weight_decay = 1})
    a:sum():backward()
    adam:step()
    assert.equal(1, b:item())
    assert.is_true(a:item() < 1)
  end)

  it("goes on from a saved state as if it had not stopped", function()
    for name, opts in pairs {SGD = {lr = 0.1, momentum = 0.9}, Adam = {lr = 0.1, amsgrad = true}, RMSprop = {centered = true}} do
      local p, q = nn.Parameter(tide.tensor {0.0, 10.0}), nn.Parameter(tide.tensor {0.0, 10.0})
      local one, two = optim[name]({p}, opts), optim[name]({q}, opts)
      run(one, p, 3)
      run(two, q, 3)
      two.lr = 0.7
      local path = os.tmpname()
      tide.save(two, path)
      local third = optim[name]({q}, opts)
      third:load_state_dict((tide.load(path)))
      os.remove(path)
      assert.near(0.7, third.lr, 1e-12)
      third.lr = opts.lr or 0.01
      assert.same(run(one, p, 3), run(third, q, 3), name)
    end
  end)

  it("refuses a state that is not its own", function()
    local adam = optim.Adam(nn.Linear(1, 1))
    fails_with(function() adam:load_state_dict {} end, "Adam", "1.steps")
    local state = adam:state_dict()
    state["1.9.m"] = tide.zeros(1)
    fails_with(function() adam:load_state_dict(state) end, "1.9.m")
  end)

  it("takes a closure that computes the loss", function()
    local p = nn.Parameter(tide.tensor {0.0})
    local sgd = optim.SGD({p}, {lr = 0.5})
    local loss = sgd:step(function()
      local l = bowl(p)
      l:backward()
      return l
    end)
    assert.equal(9, loss:item())
    assert.near(3, p:item(), 1e-6)
  end)

  local p = nn.Parameter(tide.ones(2))
  local wrong = {
    ["no parameters"] = {function() optim.SGD({}) end, "SGD", "at least one"},
    ["what is no parameter"] = {function() optim.SGD({1}) end, "params[1]", "a Tensor"},
    ["a computed tensor"] = {function() optim.SGD({p * 2}) end, "params[1]", "a leaf"},
    ["a parameter twice"] = {function() optim.SGD({p, p}) end, "params[2]", "given before"},
    ["an unknown option"] = {function() optim.SGD({p}, {lrr = 1}) end, "lrr", "lr"},
    ["a negative rate"] = {function() optim.Adam({p}, {lr = -1}) end, "lr", ">= 0"},
    ["nan"] = {function() optim.Adam({p}, {lr = 0 / 0}) end, "lr"},
    ["one beta"] = {function() optim.Adam({p}, {betas = {0.9}}) end, "betas", "two numbers"},
    ["nesterov without momentum"] = {function() optim.SGD({p}, {nesterov = true}) end, "nesterov", "momentum"},
    ["a wrong name"] = {function() return optim.Adm end, "Adm", "did you mean 'Adam'"},
  }
  for what, case in pairs(wrong) do
    it("refuses " .. what, function() fails_with(case[1], "optim_spec.lua:", table.unpack(case, 2)) end)
  end
end)

describe("a scheduler", function()
  local function rates(make, n)
    local sgd = optim.SGD({nn.Parameter(tide.ones(1))}, {lr = 1})
    local scheduler, got = make(sgd), {}
    for i = 1, n do
      got[i] = sgd.lr
      scheduler:step()
    end
    return got, scheduler, sgd
  end
  local function assert_rates(expected, make)
    for i, lr in ipairs((rates(make, #expected))) do assert.near(expected[i], lr, 1e-9) end
  end

  it("StepLR multiplies by gamma after every so many epochs", function()
    assert_rates({1, 1, 0.5, 0.5, 0.25}, function(o) return optim.StepLR(o, {step_size = 2, gamma = 0.5}) end)
    assert_rates({1, 1, 0.5}, function(o) return optim.StepLR(o, 2, 0.5) end)
  end)
  it("MultiStepLR multiplies at milestones", function()
    assert_rates({1, 0.1, 0.1, 0.01}, function(o) return optim.MultiStepLR(o, {milestones = {1, 3}}) end)
  end)
  it("ExponentialLR multiplies every epoch", function()
    assert_rates({1, 0.5, 0.25}, function(o) return optim.ExponentialLR(o, {gamma = 0.5}) end)
  end)
  it("CosineAnnealingLR is half a cosine", function()
    assert_rates({1, (1 + math.cos(math.pi / 4)) / 2, 0.5}, function(o) return optim.CosineAnnealingLR(o, {T_max = 4}) end)
  end)
  it("LinearLR is a line between two factors", function()
    assert_rates({0.5, 0.75, 1, 1}, function(o) return optim.LinearLR(o, {start_factor = 0.5, total_iters = 2}) end)
  end)
  it("WarmupLR rises to the full rate", function()
    assert_rates({0.25, 0.5, 0.75, 1, 1}, function(o) return optim.WarmupLR(o, {steps = 3}) end)
  end)
  it("LambdaLR takes a function of the epoch", function()
    assert_rates({1, 0.5, 1 / 3}, function(o) return optim.LambdaLR(o, function(t) return 1 / (t + 1) end) end)
  end)
  it("ReduceLROnPlateau waits, then lowers", function()
    local sgd = optim.SGD({nn.Parameter(tide.ones(1))}, {lr = 1})
    local scheduler = optim.ReduceLROnPlateau(sgd, {patience = 1, factor = 0.5})
    for _, loss in ipairs {3, 2, 2, 2} do scheduler:step(loss) end
    assert.equal(0.5, sgd.lr)
  end)
  it("goes on from its state", function()
    local _, scheduler = rates(function(o) return optim.StepLR(o, 2, 0.5) end, 3)
    local sgd = optim.SGD({nn.Parameter(tide.ones(1))}, {lr = 9})
    local other = optim.StepLR(sgd, 2, 0.5)
    other:load_state_dict(scheduler:state_dict())
    assert.equal(0.5, sgd.lr)
    assert.same({0.5}, other:get_last_lr())
  end)
  it("refuses unknown and missing options", function()
    local sgd = optim.SGD({nn.Parameter(tide.ones(1))})
    fails_with(function() optim.StepLR(sgd, {stepsize = 2}) end, "stepsize", "step_size")
    fails_with(function() optim.StepLR(sgd) end, "StepLR", "step_size")
    fails_with(function() optim.StepLR({}, 2) end, "an optimizer")
  end)
end)
