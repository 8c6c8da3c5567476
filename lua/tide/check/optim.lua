--- Conformance of one optimizer: its fused kernel against its step(), both against a loss that must fall.
local core = require "tide.core"
local tools = require "tide.check.tools"

local STEPS = 6
local SEED = 20171

--- Options to try: the defaults, and each boolean and number that defaults to off, turned on.
local function variants(info)
  local list = {{}}
  for _, o in ipairs(info.options) do
    if o.default == "false" then
      list[#list + 1] = {[o.name] = true, momentum = o.name == "nesterov" and 0.9 or nil}
    elseif o.type == "number" and tonumber(o.default) == 0 and o.name ~= "dampening" then
      list[#list + 1] = {[o.name] = 0.5}
    end
  end
  return list
end

--- Parameters after some steps on a bowl, the squared distance from a point.
local function trajectory(name, options)
  core.manual_seed(SEED)
  local params, goals = {}, {}
  for i, shape in ipairs {{3, 4}, {5}, {1}} do
    params[i] = core.ops.randn(shape):requires_grad_()
    goals[i] = core.ops.randn(shape)
  end
  local optimizer = core.new_optimizer(name, params, options)
  for _ = 1, STEPS do
    optimizer:zero_grad()
    local loss
    for i, p in ipairs(params) do
      local part = (p - goals[i]):square():sum()
      loss = loss and loss + part or part
    end
    loss:backward()
    optimizer:step()
  end
  local results = {n = #params}
  for i, p in ipairs(params) do results[i] = p:detach():clone() end
  return results
end

local function words_of(options)
  local parts = {}
  for k, v in pairs(options) do parts[#parts + 1] = ("%s = %s"):format(k, tostring(v)) end
  table.sort(parts)
  return #parts > 0 and table.concat(parts, ", ") or "defaults"
end

--- Checks one optimizer.
---@param name string
---@return tide.check.Report
return function(name)
  local report, info = tools.report(), core.optim_info(name)
  local subject = "optimizer " .. name
  report.subjects[1] = subject
  for _, options in ipairs(variants(info)) do
    report:test(subject .. ", " .. words_of(options), "kernel and step() agree", function()
      local expected = trajectory(name, options)
      local before = core.decompose(true)
      local ok, got = pcall(trajectory, name, options)
      core.decompose(before)
      if not ok then error(got, 0) end
      return tools.agree(got, expected, 1e-4, 1e-5)
    end)
  end
  report:test(subject, "doc", function() return (info.doc or "") ~= "", "it has none" end)
  report:test(subject, "an unknown option", function()
    return tools.refused(name, function() return core.new_optimizer(name, {core.ops.ones({2})}, {no_such_option = 1}) end)
  end)
  report:test(subject, "no parameters", function()
    return tools.refused(name, function() return core.new_optimizer(name, {}) end)
  end)
  return report
end
