--- PyTorch's schedulers: objects that set an optimizer's rates, `scheduler:step()` once an epoch (or a step).
---
--- Each computes every group's rate from the rate that the group had when the scheduler was made and from the number of
--- step() calls so far, t: so a scheduler can be set to any t. Formulas are those of torch.optim.lr_scheduler.
local core = require "tide.core"
local util = require "tide.util"

local M = {}

---@class tide.optim.Scheduler
---@field last_epoch integer   step() calls so far
---@field step fun(self)   counts one step and sets the rates
---@field get_last_lr fun(self): number[]   the rates that are set
local Scheduler = {}
Scheduler.__index = Scheduler

local function apply(self)
  for i, group in ipairs(self.optimizer.param_groups) do
    local base = self.base_lrs[i] or group.lr
    self.base_lrs[i] = base
    group.lr = self.factor and base * self.factor(self.last_epoch, i) or self.rate(base, self.last_epoch, i)
  end
end

--- Counts one step and sets the rates.
function Scheduler:step()
  self.last_epoch = self.last_epoch + 1
  apply(self)
end

--- The rates that are set now, one a group.
---@return number[]
function Scheduler:get_last_lr()
  local rates = {}
  for i, group in ipairs(self.optimizer.param_groups) do rates[i] = group.lr end
  return rates
end

--- What a checkpoint needs: 0-dim tensors by name, which tide.save takes.
---@return table<string, tide.Tensor>
function Scheduler:state_dict()
  local state = {last_epoch = core.tensor(self.last_epoch, {dtype = "i64"})}
  for i, lr in ipairs(self.base_lrs) do state["base_lr." .. i] = core.tensor(lr, {dtype = "f64"}) end
  return state
end

--- Goes on where state_dict() was taken.
---@param state table<string, tide.Tensor>
function Scheduler:load_state_dict(state)
  if not (type(state) == "table" and core.is_tensor(state.last_epoch)) then
    util.fail("%s:load_state_dict: expected what state_dict() gave, got %s", self.__name, util.describe(state))
  end
  self.last_epoch = state.last_epoch:item()
  for i in ipairs(self.base_lrs) do
    local lr = state["base_lr." .. i]
    if lr then self.base_lrs[i] = lr:item() end
  end
  apply(self)
end

--- Makes the constructor of a scheduler: names of its options in order, their defaults (nil: required), and what gives
--- factor(t) or rate(base, t) from them.
local function scheduler(name, order, defaults, build)
  M[name] = function(optimizer, ...)
    util.expect(type(optimizer) == "table" and optimizer.param_groups, name, "optimizer", "an optimizer", optimizer)
    local o, given, first = {}, {...}, ...
    if #given == 1 and type(first) == "table" and #first == 0 then
      for k in pairs(first) do
        local known = false
        for _, n in ipairs(order) do known = known or n == k end
        if not known then util.fail("%s: there is no option '%s'%s", name, tostring(k), util.suggestion(tostring(k), order)) end
      end
      given = {}
      for i, n in ipairs(order) do given[i] = first[n] end
    end
    for i, n in ipairs(order) do
      if given[i] == nil then o[n] = defaults[n] else o[n] = given[i] end
      if o[n] == nil then util.fail("%s: %s: expected a value, got none", name, n) end
    end
    local self = setmetatable({optimizer = optimizer, last_epoch = 0, base_lrs = {}, __name = name}, Scheduler)
    build(self, o, name)
    apply(self)
    return self
  end
end

scheduler("StepLR", {"step_size", "gamma"}, {gamma = 0.1}, function(self, o, who)
  local size, gamma = util.integer(who, "step_size", o.step_size, 1), util.number(who, "gamma", o.gamma)
  self.factor = function(t) return gamma ^ (t // size) end
end)

scheduler("MultiStepLR", {"milestones", "gamma"}, {gamma = 0.1}, function(self, o, who)
  util.expect(type(o.milestones) == "table", who, "milestones", "a list of epochs", o.milestones)
  local gamma = util.number(who, "gamma", o.gamma)
  for i, m in ipairs(o.milestones) do util.integer(who, ("milestones[%d]"):format(i), m, 0) end
  self.factor = function(t)
    local passed = 0
    for _, m in ipairs(o.milestones) do if t >= m then passed = passed + 1 end end
    return gamma ^ passed
  end
end)

scheduler("ExponentialLR", {"gamma"}, {}, function(self, o, who)
  local gamma = util.number(who, "gamma", o.gamma)
  self.factor = function(t) return gamma ^ t end
end)

scheduler("CosineAnnealingLR", {"T_max", "eta_min"}, {eta_min = 0}, function(self, o, who)
  local t_max, eta_min = util.integer(who, "T_max", o.T_max, 1), util.number(who, "eta_min", o.eta_min)
  self.rate = function(base, t) return eta_min + (base - eta_min) * (1 + math.cos(math.pi * t / t_max)) / 2 end
end)

scheduler("LinearLR", {"start_factor", "end_factor", "total_iters"}, {start_factor = 1 / 3, end_factor = 1, total_iters = 5},
  function(self, o, who)
    local first, last = util.number(who, "start_factor", o.start_factor), util.number(who, "end_factor", o.end_factor)
    local n = util.integer(who, "total_iters", o.total_iters, 1)
    self.factor = function(t) return first + (last - first) * math.min(t, n) / n end
  end)

scheduler("WarmupLR", {"steps", "start_factor"}, {start_factor = 0}, function(self, o, who)
  local n, first = util.integer(who, "steps", o.steps, 1), util.number(who, "start_factor", o.start_factor)
  self.factor = function(t) return t >= n and 1 or first + (1 - first) * (t + 1) / (n + 1) end
end)

scheduler("LambdaLR", {"lr_lambda"}, {}, function(self, o, who)
  local f = o.lr_lambda
  util.expect(type(f) == "function" or type(f) == "table", who, "lr_lambda", "a function, or a list of one for each group", f)
  self.factor = function(t, i)
    local g = type(f) == "table" and f[i] or f
    if type(g) ~= "function" then util.fail("%s: lr_lambda[%d]: expected a function, got %s", who, i, util.describe(g)) end
    return g(t)
  end
end)

--- Lowers the rates when a measure has stopped improving: scheduler:step(value).
---@param optimizer tide.optim.Optimizer
---@param opts table?   mode = "min" or "max", factor = 0.1, patience = 10, threshold = 1e-4 (relative), min_lr = 0
---@return tide.optim.Scheduler
function M.ReduceLROnPlateau(optimizer, opts)
  util.expect(type(optimizer) == "table" and optimizer.param_groups, "ReduceLROnPlateau", "optimizer", "an optimizer", optimizer)
  local o = util.named("ReduceLROnPlateau", opts, {mode = "min", factor = 0.1, patience = 10, threshold = 1e-4, min_lr = 0})
  local self = setmetatable({optimizer = optimizer, last_epoch = 0, base_lrs = {}, bad = 0, __name = "ReduceLROnPlateau"},
                            Scheduler)
  function self.step(s, value)
    s.last_epoch = s.last_epoch + 1
    value = core.is_tensor(value) and value:item() or util.number("ReduceLROnPlateau", "value", value)
    local better = not s.best or (o.mode == "max" and value > s.best + math.abs(s.best) * o.threshold)
                   or (o.mode == "min" and value < s.best - math.abs(s.best) * o.threshold)
    if better then s.best, s.bad = value, 0 else s.bad = s.bad + 1 end
    if s.bad > o.patience then
      for _, group in ipairs(optimizer.param_groups) do group.lr = math.max(group.lr * o.factor, o.min_lr) end
      s.bad = 0
    end
  end
  return self
end

return M
