--- Profiles: where the time of a piece of a script goes, by op.
local core = require "tide.core"
local util = require "tide.util"

local M = {}

---@class tide.Profile
---@field total number      seconds of it all
---@field outside number    of these, outside ops: Lua, and the core between ops
---@field core number       of these, in the core: choosing kernels, allocating, recording, walking the tape
---@field kernels number    of these, in kernels
---@field lost integer      calls for which the trace had no room
local Profile = {__name = "Profile"}
Profile.__index = Profile

local function micro(seconds) return ("%.1f"):format(1e6 * seconds) end

local function share(part, whole) return whole > 0 and ("%.1f %%"):format(100 * part / whole) or "-" end

local function per_second(amount, seconds, unit)
  return amount > 0 and seconds > 0 and ("%.1f"):format(amount / seconds / unit) or "-"
end

local heads = {"op", "", "calls", "total ms", "each µs", "kernel µs", "share", "MiB", "GB/s", "GFLOP/s"}

--- The table as text.
function Profile:__tostring()
  local lines, wide = {}, #"outside ops (Lua)"
  for _, r in ipairs(self) do wide = math.max(wide, #r.op) end
  local function line(...)
    local cells = {...}
    local text = cells[1] .. (" "):rep(wide - #cells[1]) .. ("  %-8s"):format(cells[2])
    for i = 3, #cells do
      local width = i == 3 and 8 or 11
      text = text .. (" "):rep(math.max(1, width - utf8.len(cells[i]))) .. cells[i]
    end
    lines[#lines + 1] = text
  end
  line(table.unpack(heads))
  for _, r in ipairs(self) do
    line(r.op, r.backward and "backward" or "forward", tostring(r.calls), ("%.3f"):format(1e3 * r.time), micro(r.time / r.calls),
         micro(r.kernel / r.calls), share(r.time, self.total), ("%.1f"):format(r.bytes / 2 ^ 20),
         per_second(r.bytes, r.kernel, 1e9), per_second(r.flops, r.kernel, 1e9))
  end
  local function part(name, seconds) line(name, "", "", ("%.3f"):format(1e3 * seconds), "", "", share(seconds, self.total)) end
  part("in kernels", self.kernels)
  part("in the core", self.core)
  part("outside ops (Lua)", self.outside)
  part("total", self.total)
  if self.lost > 0 then lines[#lines + 1] = ("the trace had no room for %d calls"):format(self.lost) end
  return table.concat(lines, "\n")
end

--- Runs f and says where its time went: a table with a row for each op, forward and backward apart, the slowest first.
---
---     print(tide.profile(function() step() end, {times = 10, trace = "step.json"}))
---
--- A row has op, backward, calls, time and kernel (seconds: of the op itself without ops that it calls in turn, and of that in
--- kernels), bytes (that kernels read and write) and flops (0 where they are not known). What is not in ops is in `outside`.
--- The trace is for Chrome's about:tracing or ui.perfetto.dev. While it runs, ops on a GPU are waited for one by one. A step that is
--- seen for the first time also pays for loading plugins and choosing kernels: `warmup` runs it before the clock starts.
---@param f function
---@param opts table?   times = 1, warmup = 0: how often f runs, counted and before that; trace: a file to write
---@return tide.Profile
function M.profile(f, opts)
  util.expect(type(f) == "function" or getmetatable(f) and getmetatable(f).__call, "profile", "f", "a function", f)
  local o = util.named("profile", opts, {times = 1, warmup = 0, trace = false})
  util.expect(not o.trace or type(o.trace) == "string", "profile", "trace", "the name of a file", o.trace)
  o.times = util.integer("profile", "times", o.times, 1)
  o.warmup = util.integer("profile", "warmup", o.warmup, 0)
  for _ = 1, o.warmup do f() end
  core.profile_start(o.trace and true)
  local ok, message = pcall(function() for _ = 1, o.times do f() end end)
  if not ok then
    core.profile_stop()
    error(message, 0)
  end
  local report = core.profile_stop(o.trace or nil)
  report.kernels, report.core = 0, report.total - report.outside
  for _, r in ipairs(report) do report.kernels = report.kernels + r.kernel end
  report.core = report.core - report.kernels
  return setmetatable(report, Profile)
end

return M
