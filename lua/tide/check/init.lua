--- The conformance suite: what every op, layer, loss and optimizer has to do, ours or a third party's.
---
--- Ops, layers and losses bring samples; on each of them: it runs; strided inputs give the same; kernel and definition agree;
--- gradients and second gradients agree with differences in f64; inputs without elements and wrong inputs are fine or refused
--- with one clear error that names it.
---@class tide.check
local core = require "tide.core"
local tools = require "tide.check.tools"
local util = require "tide.util"

local M = {}

--- Checks one op.
---@param name string
---@return tide.check.Report
function M.op(name) return require "tide.check.op"(name) end

--- Checks one layer or loss.
---@param name string
---@return tide.check.Report
function M.layer(name) return require "tide.check.layer"(name) end

--- Checks one optimizer.
---@param name string
---@return tide.check.Report
function M.optim(name) return require "tide.check.optim"(name) end

local kinds = {op = M.op, layer = M.layer, loss = M.layer, optim = M.optim}

--- Everything that there is: a list of {kind, name}.
---@return string[][]
function M.subjects()
  local list = {}
  for _, kind in ipairs {"op", "layer", "loss", "optim"} do
    for _, name in ipairs(core.layers(kind)) do list[#list + 1] = {kind, name} end
  end
  return list
end

--- Checks {kind, name} pairs.
---@param subjects string[][]
---@return tide.check.Report
function M.run(subjects)
  local report = tools.report()
  for _, s in ipairs(subjects) do report:add(kinds[s[1]](s[2])) end
  return report
end

--- What a plugin file provides, as subjects; kernels stand for their ops.
local function provided_by(path)
  core.plugin(path)
  local file = path:match "[^/]+$"
  for _, p in ipairs(core.plugins()) do
    if p.path == path or p.path:match "[^/]+$" == file and p.state == "loaded" then
      local list, seen = {}, {}
      for kind, name in (p.provides or ""):gmatch "(%w+):([^%s@]+)" do
        if kind == "kernel" then kind = "op" end
        if kinds[kind] and name ~= "*" and not seen[kind .. name] then
          seen[kind .. name] = true
          list[#list + 1] = {kind, name}
        end
      end
      return list
    end
  end
  return {}
end

--- Checks a plugin file, everything ("all"), or one op, layer, loss or optimizer by name.
---@param target string
---@return tide.check.Report
function M.target(target)
  util.expect(type(target) == "string", "check", "target", "a plugin file or a name", target)
  if target == "all" then return M.run(M.subjects()) end
  if target:match "%.so$" or target:find "/" then return M.run(provided_by(target)) end
  if core.layer_info(target) then return M.layer(target) end
  if core.optim_info(target) then return M.optim(target) end
  if core.op_info(target) then return M.op(target) end
  util.fail("check: there is no plugin file, op, layer, loss or optimizer '%s'", target)
end

return M
