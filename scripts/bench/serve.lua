--- One workload on Tide, driven by compare.lua:    usage: tide serve.lua --workload mlp [--variant captured] [--threads 2]
--- Reads a command a line, answers with a line:
---
---     losses N        the first N losses; then what a step takes beyond the network: MiB
---     round SECONDS   rate and unit
---     quit            peak resident MiB
local here = arg[0]:match "^(.*)/[^/]*$" or "."
package.path = here .. "/?.lua;" .. package.path
local tide = require "tide"
local opt = tide.options {workload = "add", variant = "", threads = 1}
tide.set_num_threads(opt.threads)
tide.manual_seed(1)

local function answer(...)
  io.stdout:write(table.concat({...}, " "), "\n")
  io.stdout:flush()
end

local function give_up(message)
  answer("skip", (tostring(message):gsub("%s*\n.*", ""):gsub("^[^ ]*:%d+: ", "")))
  os.exit(0)
end

local make = require "workloads"[opt.workload]
if not make then give_up("there is no workload " .. opt.workload) end
local ok, w = pcall(make)
if not ok then give_up(w) end
local step = w.step
if opt.variant == "captured" then
  if not tide.capture then give_up "this Tide has no tide.capture" end
  step = tide.capture(step)
end

local function peak_mib()
  for line in io.lines "/proc/self/status" do
    local kib = line:match "^VmHWM:%s*(%d+)"
    if kib then return kib // 1024 end
  end
  return 0
end

--- The greatest memory of tensors in use during a step, less what was in use before it: MiB.
local function step_mib()
  collectgarbage()
  tide.reset_peak_memory()
  local before = tide.memory().current
  step()
  local taken = tide.memory().peak - before
  if opt.variant == "captured" then taken = taken + step:stats().buffer_bytes end   -- which stay between steps
  return taken / 2 ^ 20
end

local function losses(n)
  local list = {}
  for i = 1, n do
    local loss = step()
    list[i] = ("%.6f"):format((w.value and w.value() or loss):item())
  end
  if opt.variant == "captured" then                      -- a capture that always falls back would be eager under another name
    local s = step:stats()
    if s.replays == 0 then error("it was not replayed: " .. s.why, 0) end
  end
  list[n + 1] = ("%.3f"):format(step_mib())
  return table.concat(list, " ")
end

--- Calls the step for about the given time, after a short warm-up; returns calls per second.
local function rate(seconds)
  local f = w.bare or step
  local now = tide.time
  local t0 = now()
  repeat f() until now() - t0 > seconds / 10
  local n, chunk = 0, 1
  t0 = now()
  local t1
  repeat
    for _ = 1, chunk do f() end
    n = n + chunk
    t1 = now()
    if t1 - t0 < seconds / 20 then chunk = chunk * 2 end
  until t1 - t0 >= seconds
  return n / (t1 - t0)
end

for line in io.lines() do
  local command, value = line:match "^(%S+)%s*(%S*)$"
  local fine, message = pcall(function()
    if command == "losses" then
      answer(losses(math.tointeger(tonumber(value))))
    elseif command == "round" then
      answer(("%.6g"):format(rate(tonumber(value)) * w.per), w.unit)
    elseif command == "quit" then
      answer(peak_mib())
      os.exit(0)
    end
  end)
  if not fine then give_up(message) end
end
