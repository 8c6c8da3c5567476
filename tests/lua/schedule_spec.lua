-- Learning rates as functions of the step.
local tide = require "tide"
local schedule = tide.optim.schedule

describe("optim.schedule.cosine", function()
  local lr = schedule.cosine(0.1, 0.0, 101)
  it("starts at lr and halves at the middle step", function()
    assert.near(0.10, lr(1),  1e-12)
    assert.near(0.05, lr(51), 1e-12)
  end)
  it("ends at lr_min and stays there", function()
    assert.near(0.0, lr(101), 1e-12)
    assert.near(0.0, lr(500), 1e-12)
  end)
  it("of one step is lr_min", function() assert.equal(0.5, schedule.cosine(1, 0.5, 1)(1)) end)
  it("refuses steps that are no positive integer", function()
    fails_with(function() schedule.cosine(0.1, 0, 0) end, "schedule_spec.lua:", "steps", ">= 1", "0")
    fails_with(function() schedule.cosine(0.1, 0, 2.5) end, "2.5")
    fails_with(function() schedule.cosine("x", 0, 2) end, "lr", "a number")
  end)
end)

describe("optim.schedule.step", function()
  it("multiplies by gamma after every so many steps", function()
    local lr = schedule.step(1, 3, 0.5)
    local got = {}
    for i = 1, 7 do got[i] = lr(i) end
    assert.same({1, 1, 1, 0.5, 0.5, 0.5, 0.25}, got)
  end)
end)

describe("optim.schedule.multistep", function()
  it("multiplies after each milestone", function()
    local lr = schedule.multistep(1, {4, 2}, 0.1)
    for step, expected in ipairs {1, 1, 0.1, 0.1, 0.01} do assert.near(expected, lr(step), 1e-12) end
  end)
end)

describe("optim.schedule.linear", function()
  it("is a straight line", function()
    local lr = schedule.linear(1, 0, 5)
    for step, expected in ipairs {1, 0.75, 0.5, 0.25, 0, 0} do assert.near(expected, lr(step), 1e-12) end
  end)
end)

describe("optim.schedule.polynomial", function()
  it("of power 1 is linear, of power 2 a parabola", function()
    assert.near(schedule.linear(1, 0.2, 9)(4), schedule.polynomial(1, 0.2, 9)(4), 1e-12)
    assert.near(0.25, schedule.polynomial(1, 0, 5, 2)(3), 1e-12)
  end)
end)

describe("optim.schedule.exponential", function()
  it("multiplies after every step", function() assert.near(0.125, schedule.exponential(1, 0.5)(4), 1e-12) end)
end)

describe("optim.schedule.warmup", function()
  it("rises in a straight line and goes on with the other schedule", function()
    local lr = schedule.warmup(4, schedule.cosine(1, 0, 11))
    for step, expected in ipairs {0.25, 0.5, 0.75, 1, 1} do assert.near(expected, lr(step), 1e-12) end
    assert.near(0.5, lr(10), 1e-12)
  end)
  it("takes one rate", function() assert.equal(2, schedule.warmup(0, 2)(1)) end)
end)

describe("optim.schedule.sequence", function()
  it("runs one after another", function()
    local lr = schedule.sequence {{schedule.constant(1), 2}, {schedule.constant(2), 1}, {schedule.constant(3)}}
    local got = {}
    for i = 1, 5 do got[i] = lr(i) end
    assert.same({1, 1, 2, 3, 3}, got)
  end)
  it("refuses parts that are no schedules", function()
    fails_with(function() schedule.sequence {{1, 2}} end, "parts[1]", "{schedule, steps}")
  end)
end)
