--- What the parts of the conformance suite share: a report, variants of inputs, comparisons.
local core = require "tide.core"
local util = require "tide.util"

local M = {}

M.floats = {f32 = true, f64 = true, f16 = true, bf16 = true}

-- ---- report ----

---@class tide.check.Report
---@field passed integer
---@field failed table[]    subject, test, message
---@field subjects string[]
local Report = {}
Report.__index = Report

--- An empty report.
function M.report() return setmetatable({passed = 0, failed = {}, subjects = {}}, Report) end

--- Runs one test: f returns true, or false and a message; an error is a failure.
function Report:test(subject, name, f)
  local ok, result, message = pcall(f)
  if ok and result then
    self.passed = self.passed + 1
    return true
  end
  table.insert(self.failed, {subject = subject, test = name, message = tostring(not ok and result or message or "failed")})
  return false
end

--- Adds another report.
function Report:add(other)
  self.passed = self.passed + other.passed
  for _, f in ipairs(other.failed) do table.insert(self.failed, f) end
  for _, s in ipairs(other.subjects) do table.insert(self.subjects, s) end
  return self
end

function Report:__tostring()
  local lines = {}
  for _, f in ipairs(self.failed) do lines[#lines + 1] = ("FAILED %s: %s: %s"):format(f.subject, f.test, f.message) end
  lines[#lines + 1] = ("%d checks of %d subject%s passed, %d failed"):format(self.passed, #self.subjects,
                                                                             #self.subjects == 1 and "" or "s", #self.failed)
  return table.concat(lines, "\n")
end

-- ---- inputs: a list of tensors, false for an absent one, lists of tensors ----

--- The same inputs with every tensor replaced by f(tensor, place).
function M.map(inputs, f)
  local out = {n = inputs.n}
  for i = 1, inputs.n do
    local x = inputs[i]
    if core.is_tensor(x) then
      out[i] = f(x, i)
    elseif type(x) == "table" then
      out[i] = {}
      for k, t in ipairs(x) do out[i][k] = core.is_tensor(t) and f(t, i) or t end
    else
      out[i] = x
    end
  end
  return out
end

--- All tensors in one list.
function M.flat(inputs)
  local list = {}
  M.map(inputs, function(t)
    list[#list + 1] = t
    return t
  end)
  return list
end

--- Calls f with inputs in their places, nil for absent ones, then the options, where there are some.
function M.call(f, inputs, options)
  local args, n = {}, inputs.n
  for i = 1, n do args[i] = inputs[i] or nil end
  if options and next(options) ~= nil then
    n = n + 1
    args[n] = options
  end
  return f(table.unpack(args, 1, n))
end

--- A copy with gaps between the elements and its axes in another order of memory.
function M.strided(t)
  if t:dim() == 0 or t:numel() == 0 then return t end
  local n = t:dim()
  local x = core.no_grad(function()
    local d = t:detach()
    local double = core.ops.stack({d, d}, n + 1)
    local spaced = double:select(n + 1, 1)
    if n < 2 then return spaced end
    return double:transpose(1, n):contiguous():transpose(1, n):select(n + 1, 1)
  end)
  return x
end

--- Lists in results are laid flat.
local function flatten(results)
  local list = {}
  for i = 1, results.n do
    local r = results[i]
    if type(r) == "table" then
      for _, t in ipairs(r) do list[#list + 1] = t end
    else
      list[#list + 1] = r
    end
  end
  return list
end

--- Whether two results agree; else false and where they do not.
function M.agree(expected, got, rtol, atol)
  local a, b = flatten(expected), flatten(got)
  if #a ~= #b then return false, ("expected %d results, got %d"):format(#a, #b) end
  for i = 1, #a do
    local x, y = a[i], b[i]
    if util.describe(x) ~= util.describe(y) then
      return false, ("result %d: expected %s, got %s"):format(i, util.describe(x), util.describe(y))
    end
    if core.is_tensor(x) then
      local same = core.no_grad(function()
        if not M.floats[x.dtype] then return x:equal(y) end
        local nan = x:isnan()
        if not nan:equal(y:isnan()) then return false end
        return x:masked_fill(nan, 0):allclose(y:masked_fill(nan, 0), {rtol = rtol, atol = atol})
      end)
      if not same then return false, ("result %d differs: expected %s, got %s"):format(i, tostring(x), tostring(y)) end
    elseif x ~= y then
      return false, ("result %d: expected %s, got %s"):format(i, tostring(x), tostring(y))
    end
  end
  return true
end

--- Whether f() succeeds, or fails with one clear sentence that names `who`.
function M.fine_or_clear(who, f)
  local ok, message = pcall(f)
  if ok then return true end
  return M.clear(who, message)
end

--- Whether an error is one clear sentence that names `who`.
function M.clear(who, message)
  if type(message) ~= "string" then return false, "the error is a " .. type(message) end
  local short = who:match "([%w_]+)$"
  if message == "" or message:find "\n" then return false, "expected one line, got: " .. message end
  if #message > 800 then return false, "the message is very long: " .. message end
  local named = message:lower():find(short:lower(), 1, true)
  if not named then return false, "the message does not name " .. who .. ": " .. message end
  return true
end

--- Whether f() is refused with one clear sentence.
function M.refused(who, f)
  local ok, message = pcall(f)
  if ok then return false, "it was accepted" end
  return M.clear(who, message)
end

--- The same tensor without elements along its first axis.
function M.emptied(t) return t:dim() > 0 and t:narrow(1, 1, 0) or t end

return M
