--- Optimizers: every one that a plugin provides, over one or more groups of parameters, and schedules of the learning rate.
---
---     local adam = optim.Adam(net:parameters(), {lr = 1e-3})
---     local sgd = optim.SGD({{params = a, lr = 0.1}, {params = b}}, {lr = 0.01, momentum = 0.9})
---     adam:zero_grad(); loss:backward(); adam:step()
---@class tide.optim
local core = require "tide.core"
local util = require "tide.util"

local M = {}

local RAW = {}

-- ---- groups: one C optimizer each ----

local group_mt = {__name = "parameter group"}

function group_mt.__index(group, key)
  if type(key) ~= "string" then return nil end
  local raw = rawget(group, RAW)
  return raw:get(key)
end

function group_mt.__newindex(group, key, value)
  if type(key) ~= "string" then util.fail("optimizer: %s is no option", util.describe(key)) end
  rawget(group, RAW):set(key, value)
end

--- Parameters as a list: a list already, a module's, or one tensor.
local function list_of(who, params)
  if core.is_tensor(params) then return {params} end
  if type(params) == "table" and params.parameters then params = params:parameters() end
  util.expect(type(params) == "table", who, "params", "a list of parameters, a module, or a list of groups", params)
  for i, p in ipairs(params) do
    util.expect(core.is_tensor(p), who, ("params[%d]"):format(i), "a Tensor", p)
    if not p.is_leaf then
      util.fail("%s: params[%d]: expected a leaf, got a tensor that was computed; optimize what it was computed from", who, i)
    end
  end
  if #params == 0 then util.fail("%s: params: expected at least one parameter, got an empty list", who) end
  return params
end

--- The options of a group: all but its parameters.
local function options_of(given)
  local o = {}
  for k, v in pairs(given) do if k ~= "params" then o[k] = v end end
  return o
end

--- What PyTorch refuses, too.
local function check_combination(who, o)
  if who == "SGD" and o.nesterov and ((o.momentum or 0) == 0 or (o.dampening or 0) ~= 0) then
    util.fail "SGD: nesterov needs a momentum greater than 0 and no dampening"
  end
  if o.betas ~= nil then
    util.expect(type(o.betas) == "table" and #o.betas == 2, who, "betas", "a list of two numbers", o.betas)
  end
end

-- ---- optimizers ----

---@class tide.optim.Optimizer
---@field param_groups table[]   groups: group.lr, group.lr = 0.1, group.params
---@field lr number              of all groups: reads the first, sets every one
local Optimizer = {}

--- One step for all parameters that have a gradient.
---@param closure (fun(): tide.Tensor)?   computes the loss anew, with its gradients
---@return tide.Tensor? loss
function Optimizer:step(closure)
  local loss
  if closure then loss = core.enable_grad(closure) end
  local only = self.only
  if only then
    only:step()
  else
    for _, group in ipairs(self.param_groups) do rawget(group, RAW):step() end
  end
  return loss
end

--- Clears the gradients of all parameters.
function Optimizer:zero_grad()
  local only = self.only
  if only then return only:zero_grad() end
  for _, group in ipairs(self.param_groups) do rawget(group, RAW):zero_grad() end
end

--- Adds a group of parameters.
---@param group table   params, and options that differ from the optimizer's
function Optimizer:add_param_group(group)
  local who = self.__name
  util.expect(type(group) == "table" and group.params ~= nil, who, "group", "a table with params", group)
  local params = list_of(who, group.params)
  for i, p in ipairs(params) do
    local id = core.identity(p)
    if self.known[id] then util.fail("%s: params[%d]: the same parameter was given before", who, i) end
    self.known[id] = true
  end
  local o = {}
  for k, v in pairs(self.defaults) do o[k] = v end
  for k, v in pairs(options_of(group)) do o[k] = v end
  check_combination(who, o)
  local raw = core.new_optimizer(who, params, o)
  local groups = self.param_groups
  groups[#groups + 1] = setmetatable({[RAW] = raw, params = params}, group_mt)
  rawset(self, "only", #groups == 1 and raw or nil)
end

local function numeric_options(who)
  local names = {}
  for _, option in ipairs(core.optim_info(who).options) do
    local kind = tostring(option.type):lower()
    if kind:find "num" or kind:find "int" then names[#names + 1] = option.name end
  end
  return names
end

--- Everything that a checkpoint needs, as tensors by name ("1.2.m": group 1, parameter 2; "1.lr"), so that tide.save takes it.
---@return table<string, tide.Tensor>
function Optimizer:state_dict()
  local state = {}
  for g, group in ipairs(self.param_groups) do
    local raw = rawget(group, RAW)
    state[g .. ".steps"] = core.tensor(raw:steps(), {dtype = "i64"})
    for _, name in ipairs(numeric_options(self.__name)) do
      local value = raw:get(name)
      if type(value) == "number" then state[("%d.%s"):format(g, name)] = core.tensor(value, {dtype = "f64"}) end
    end
    for i in ipairs(group.params) do
      for name, t in pairs(raw:state(i)) do state[("%d.%d.%s"):format(g, i, name)] = t:detach() end
    end
  end
  return state
end

--- Goes on where state_dict() was taken: the same groups of the same parameters.
---@param state table<string, tide.Tensor>
function Optimizer:load_state_dict(state)
  local who = self.__name .. ":load_state_dict"
  util.expect(type(state) == "table", who, "state", "what state_dict() gave", state)
  for g in ipairs(self.param_groups) do
    if not core.is_tensor(state[g .. ".steps"]) then util.fail("%s: it has no '%d.steps': another number of groups?", who, g) end
  end
  for _, name in ipairs(util.keys(state)) do
    local g, rest = name:match "^(%d+)%.(.+)$"
    local group = g and self.param_groups[tonumber(g)]
    local i, slot = (rest or ""):match "^(%d+)%.(.+)$"
    local t = state[name]
    if not group or not core.is_tensor(t) or i and not group.params[tonumber(i)] then
      util.fail("%s: '%s' belongs to no parameter here", who, name)
    end
    local raw = rawget(group, RAW)
    if slot then
      raw:set_state(tonumber(i), slot, t)
    elseif rest == "steps" then
      raw:set_steps(t:item())
    else
      raw:set(rest, t:item())
    end
  end
end

function Optimizer:__tostring()
  local n = 0
  for _, group in ipairs(self.param_groups) do for _, p in ipairs(group.params) do n = n + p:numel() end end
  return ("%s(lr = %s, %d group%s, %s parameters)"):format(self.__name, tostring(self.lr), #self.param_groups,
                                                           #self.param_groups == 1 and "" or "s", util.thousands(n))
end

--- The class of an optimizer that a plugin provides.
local function class_of(info)
  local class = {__name = info.name, info = info}
  for name, f in pairs(Optimizer) do class[name] = f end
  local live = {}
  for _, option in ipairs(info.options) do live[option.name] = true end
  class.__index = function(self, key)
    local method = class[key]
    if method ~= nil then return method end
    if live[key] then return rawget(self, "param_groups")[1][key] end
  end
  class.__newindex = function(self, key, value)
    if not live[key] then return rawset(self, key, value) end
    for _, group in ipairs(self.param_groups) do group[key] = value end
  end
  local function construct(_, params, opts, ...)
    if type(opts) ~= "table" and opts ~= nil or select("#", ...) > 0 then
      util.fail("%s: expected %s(params, {lr = …}), got %s as options", info.name, info.name, util.describe(opts))
    end
    local self = setmetatable({param_groups = {}, known = {}, defaults = options_of(opts or {})}, class)
    local grouped = type(params) == "table" and not core.is_tensor(params) and type(params[1]) == "table"
                    and params[1].params ~= nil
    for _, group in ipairs(grouped and params or {{params = params}}) do self:add_param_group(group) end
    return self
  end
  return setmetatable(class, {__call = construct, __tostring = function() return "class " .. info.name end})
end

--- Names of all optimizers and schedulers.
---@return string[]
function M.names()
  local names = util.keys(require "tide.optim.schedulers")
  for _, name in ipairs(core.layers "optim") do names[#names + 1] = name end
  table.sort(names)
  return names
end

return setmetatable(M, {__index = function(_, key)
  if key == "schedule" then
    rawset(M, key, require "tide.optim.schedule")
    return M[key]
  end
  local value = require "tide.optim.schedulers"[key]
  if not value and type(key) == "string" then
    local info = core.optim_info(key)
    if not info then util.fail("optim: there is no optimizer or scheduler '%s'%s", key, util.suggestion(key, M.names())) end
    value = class_of(info)
  end
  rawset(M, key, value)
  return value
end})
