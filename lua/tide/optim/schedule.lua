--- Learning rates as functions of the step, which counts from 1. Each function here returns such a function:
---
---     local lr = schedule.warmup(5, schedule.cosine(0.1, 0, 100))
---     for step = 1, 100 do sgd.lr = lr(step) … end
---@class tide.optim.schedule
local util = require "tide.util"

local M = {}

local function steps_of(who, what, n) return util.integer("schedule." .. who, what, n, 1) end
local function number(who, what, x) return util.number("schedule." .. who, what, x) end

--- Always the same.
---@param lr number
---@return fun(step: integer): number
function M.constant(lr)
  number("constant", "lr", lr)
  return function() return lr end
end

--- Times gamma after every `every` steps.
---@param lr number        rate at step 1
---@param every integer    at least 1
---@param gamma number?    0.1
---@return fun(step: integer): number
function M.step(lr, every, gamma)
  number("step", "lr", lr)
  every, gamma = steps_of("step", "every", every), number("step", "gamma", gamma or 0.1)
  return function(step) return lr * gamma ^ ((step - 1) // every) end
end

--- Times gamma after each of some steps.
---@param lr number              rate at step 1
---@param milestones integer[]   steps after which the rate changes, in any order
---@param gamma number?          0.1
---@return fun(step: integer): number
function M.multistep(lr, milestones, gamma)
  number("multistep", "lr", lr)
  util.expect(type(milestones) == "table", "schedule.multistep", "milestones", "a list of steps", milestones)
  gamma = number("multistep", "gamma", gamma or 0.1)
  local at = {}
  for i, m in ipairs(milestones) do at[i] = steps_of("multistep", ("milestones[%d]"):format(i), m) end
  return function(step)
    local passed = 0
    for _, m in ipairs(at) do if step > m then passed = passed + 1 end end
    return lr * gamma ^ passed
  end
end

--- Times gamma after every step.
---@param lr number      rate at step 1
---@param gamma number
---@return fun(step: integer): number
function M.exponential(lr, gamma)
  number("exponential", "lr", lr)
  number("exponential", "gamma", gamma)
  return function(step) return lr * gamma ^ (step - 1) end
end

--- A straight line from `lr` to `lr_end`.
---@param lr number       rate at step 1
---@param lr_end number   rate at step `steps` and after it
---@param steps integer   at least 1
---@return fun(step: integer): number
function M.linear(lr, lr_end, steps)
  number("linear", "lr", lr)
  number("linear", "lr_end", lr_end)
  steps = steps_of("linear", "steps", steps)
  return function(step)
    if step >= steps then return lr_end end
    return lr + (lr_end - lr) * (step - 1) / (steps - 1)
  end
end

--- Half a cosine from `lr` down to `lr_min` (Loshchilov & Hutter 2017, arXiv:1608.03983, eq. 5).
---@param lr number       rate at step 1
---@param lr_min number   rate at step `steps` and after it
---@param steps integer   at least 1
---@return fun(step: integer): number
function M.cosine(lr, lr_min, steps)
  number("cosine", "lr", lr)
  number("cosine", "lr_min", lr_min)
  steps = steps_of("cosine", "steps", steps)
  return function(step)
    if step >= steps then return lr_min end
    return lr_min + (lr - lr_min) * (1 + math.cos(math.pi * (step - 1) / (steps - 1))) / 2
  end
end

--- A power of a straight line from `lr` to `lr_end`.
---@param lr number       rate at step 1
---@param lr_end number   rate at step `steps` and after it
---@param steps integer   at least 1
---@param power number?   1
---@return fun(step: integer): number
function M.polynomial(lr, lr_end, steps, power)
  number("polynomial", "lr", lr)
  number("polynomial", "lr_end", lr_end)
  steps, power = steps_of("polynomial", "steps", steps), number("polynomial", "power", power or 1)
  return function(step)
    if step >= steps then return lr_end end
    return lr_end + (lr - lr_end) * (1 - (step - 1) / (steps - 1)) ^ power
  end
end

--- A straight line up to another schedule, which begins where it ends: step 1 has 1 / steps of its first rate.
---@param steps integer   length of the warm-up; 0: none
---@param after number|fun(step: integer): number   the schedule, or one rate
---@return fun(step: integer): number
function M.warmup(steps, after)
  steps = util.integer("schedule.warmup", "steps", steps, 0)
  util.expect(type(after) == "number" or type(after) == "function", "schedule.warmup", "after", "a schedule or a rate", after)
  local f = type(after) == "function" and after or function() return after end
  return function(step)
    if step > steps then return f(step - steps) end
    return f(1) * step / steps
  end
end

--- One schedule after another.
---@param parts table[]   {schedule, steps} each; the last may leave out its steps
---@return fun(step: integer): number
function M.sequence(parts)
  util.expect(type(parts) == "table" and #parts > 0, "schedule.sequence", "parts", "a list of {schedule, steps}", parts)
  for i, p in ipairs(parts) do
    util.expect(type(p) == "table" and type(p[1]) == "function", "schedule.sequence", ("parts[%d]"):format(i),
                "{schedule, steps}", p)
    if i < #parts or p[2] then util.integer("schedule.sequence", ("parts[%d][2]"):format(i), p[2], 1) end
  end
  return function(step)
    for i, p in ipairs(parts) do
      if i == #parts or step <= p[2] then return p[1](step) end
      step = step - p[2]
    end
  end
end

return M
