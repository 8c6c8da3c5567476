--- The benchmark: Tide and PyTorch in turn, in one run.    usage: scripts/bench/run.sh, which calls this
---
--- Every contestant of a workload is a process (serve.lua, serve.py) that lives through all rounds and sleeps while another one
--- runs, so a round of each follows a round of the other: A B A B. Ratios are given twice, of medians and of best rounds: where
--- a process was disturbed, which hurts threads that spin most, the best rounds are the fairer ones.
local tide = require "tide"
local here = arg[0]:match "^(.*)/[^/]*$" or "."
local opt = tide.options {rounds = 5, threads = "1,2", seconds = 1.0, workloads = "", json = "", python = "", limits = "", costs = "",
                          tide = "tide", tide_only = false}

-- Contestants beside eager Tide and PyTorch as scripts are mostly written.
local plain, training = {}, {captured = true}
local images = {captured = true, torch = {"channels_last"}}
local optimizer = {captured = true, torch = {"fused"}}
local rows = {
  {"add", plain}, {"add_recorded", plain}, {"xor", training}, {"mlp", training}, {"mlp_adam", optimizer}, {"lenet", images},
  {"resnet20", images}, {"char_lstm", optimizer}, {"gpt", optimizer}, {"sgd_50", optimizer}, {"adam_50", optimizer},
  {"matmul_512", plain}, {"matmul_mlp", plain}, {"conv_16", {torch = {"channels_last"}}},
  {"conv_32", {torch = {"channels_last"}}}, {"conv_64", {torch = {"channels_last"}}},
}
local LOSSES, AGREE = 20, 1e-3

-- ---- processes ----

local fifos = 0

--- Starts a contestant. Commands go through a named pipe, answers come through an ordinary one.
local function start(c, workload, threads)
  fifos = fifos + 1
  local fifo = ("%s/pipe%d"):format(os.getenv "BENCH_WORK", fifos)
  assert(os.execute("mkfifo " .. fifo))
  local program = c.side == "Tide" and ("%s %s/serve.lua"):format(opt.tide, here) or ("%s %s/serve.py"):format(opt.python, here)
  local variant = c.variant ~= "" and "--variant " .. c.variant or ""
  c.from = assert(io.popen(("OMP_NUM_THREADS=%d exec %s --workload %s %s --threads %d <%s 2>>%s/errors")
    :format(threads, program, workload, variant, threads, fifo, os.getenv "BENCH_WORK"), "r"))
  c.to = assert(io.open(fifo, "w"))
end

--- Sends a command and waits for the answer; nil where the contestant has given up, which c.skip then explains.
local function ask(c, ...)
  if c.skip then return nil end
  c.to:write(table.concat({...}, " "), "\n")
  c.to:flush()
  local line = c.from:read "l"
  if not line then
    c.skip = ("ended without an answer; see %s/errors"):format(os.getenv "BENCH_WORK")
    c.crashed = true
  else
    c.skip = line:match "^skip (.*)"
  end
  return not c.skip and line or nil
end

local function stop(c)
  local line = ask(c, "quit")
  if line then
    local peak, step = line:match "^(%S+)%s*(%S*)"
    c.peak, c.step = tonumber(peak), tonumber(step) or c.step
  end
  c.to:close()
  c.from:close()
end

-- ---- figures ----

local function median(v)
  local s = table.move(v, 1, #v, 1, {})
  table.sort(s)
  local h = #s // 2
  return #s % 2 == 1 and s[h + 1] or (s[h] + s[h + 1]) / 2
end

local function number(x)
  if not x or x ~= x then return "-" end
  if x >= 1e5 then return ("%.0f"):format(x) end
  return ("%.4g"):format(x)
end

local function take_losses(c, line)
  c.losses = {}
  for text in line:gmatch "%S+" do c.losses[#c.losses + 1] = tonumber(text) or 0 / 0 end
  c.step = table.remove(c.losses)
end

--- The greatest distance of two loss curves; a NaN counts as infinite.
local function distance(a, b)
  local most = 0
  for i = 1, LOSSES do
    local d = math.abs((a[i] or 0 / 0) - (b[i] or 0 / 0))
    if d ~= d then return math.huge end
    most = math.max(most, d)
  end
  return most
end

local function run(workload, kind, threads)
  local list = {{side = "Tide", variant = ""}}
  if kind.captured then list[#list + 1] = {side = "Tide", variant = "captured"} end
  if opt.python ~= "" and not opt.tide_only then
    list[#list + 1] = {side = "PyTorch", variant = ""}
    for _, v in ipairs(kind.torch or {}) do list[#list + 1] = {side = "PyTorch", variant = v} end
  end
  for _, c in ipairs(list) do
    start(c, workload, threads)
    local line = ask(c, "losses", LOSSES)
    if line then take_losses(c, line) end
    c.rates = {}
  end
  for _ = 1, opt.rounds do
    for _, c in ipairs(list) do
      local line = ask(c, "round", opt.seconds)
      if line then
        local rate, unit = line:match "^(%S+) (.*)$"
        c.rates[#c.rates + 1], c.unit = tonumber(rate), unit
      end
    end
  end
  for _, c in ipairs(list) do
    stop(c)
    if #c.rates > 0 then
      c.median, c.min, c.max = median(c.rates), math.min(table.unpack(c.rates)), math.max(table.unpack(c.rates))
    end
  end
  return list
end

-- ---- the report ----

local function name_of(c) return c.side .. (c.variant ~= "" and " " .. c.variant or "") end

local failed, results, summary = false, {}, {}

--- The machine's limits at a number of threads, from the C program's lines "NAME LIBRARY VALUE UNIT".
local function limits_of(threads)
  local list = {}
  if opt.limits == "" then return list end
  local p = assert(io.popen(("OMP_NUM_THREADS=%d %s"):format(threads, opt.limits), "r"))
  for line in p:lines() do
    local name, library, value, unit = line:match "^(%S+) (%S+) (%S+) (%S+)$"
    if name then list[#list + 1] = {name = name, library = library, value = tonumber(value), unit = unit} end
  end
  p:close()
  return list
end

--- What starting costs: time and peak memory of an interpreter that does nothing, and of one that has imported PyTorch.
local function starts()
  local status = [[for l in io.lines "/proc/self/status" do local k = l:match "^VmHWM:%s*(%d+)" if k then print(k) end end]]
  local list = {{"tide -e ''", opt.tide .. " -e ''", ("%s -e '%s'"):format(opt.tide, status)}}
  if opt.python ~= "" and not opt.tide_only then
    local import = opt.python .. [[ -c 'import torch; print([l.split()[1] for l in open("/proc/self/status") if "VmHWM" in l][0])']]
    list[2] = {"import torch", import .. " >/dev/null", import}
  end
  print "\nstarting"
  for _, s in ipairs(list) do
    local times = {}
    for i = 0, opt.rounds do                             -- the first fills the page cache
      local t0 = tide.time()
      os.execute(s[2] .. " 2>/dev/null")
      times[i] = tide.time() - t0
    end
    local p = assert(io.popen(s[3] .. " 2>/dev/null"))
    local kib = tonumber(p:read "l" or "")
    p:close()
    print(("  %-24s %10.1f ms %10s MiB"):format(s[1], 1e3 * median(times), number(kib and kib / 1024)))
  end
end

--- What an op costs in the core alone.
local function costs()
  if opt.costs == "" then return end
  local p = assert(io.popen(opt.costs, "r"))
  for line in p:lines() do
    local name, value, unit = line:match "^(%S+) %S+ (%S+) (%S+)$"
    if name then print(("  %-24s %10s %s"):format(name, value, unit)) end
  end
  p:close()
end

local function report(workload, list, threads, limits)
  local unit
  for _, c in ipairs(list) do unit = unit or c.unit end
  print(("\n%s, %d thread%s%s"):format(workload, threads, threads > 1 and "s" or "", unit and " (" .. unit .. ")" or ""))
  print(("  %-24s %10s %10s %10s %10s %10s"):format("", "median", "min", "max", "peak MiB", "step MiB"))
  for _, c in ipairs(list) do
    if c.skip then
      print(("  %-24s skipped: %s"):format(name_of(c), c.skip))
      failed = failed or c.crashed
    else
      print(("  %-24s %10s %10s %10s %10s %10s"):format(name_of(c), number(c.median), number(c.min), number(c.max),
        number(c.peak), number(c.step)))
    end
  end
  for _, l in ipairs(limits) do
    if l.name == workload then print(("  %-24s %10s   alone"):format(l.library, number(l.value))) end
  end
  local reference = list[1]
  for _, c in ipairs(list) do
    if c ~= reference and c.losses and reference.losses then
      c.distance = distance(reference.losses, c.losses)
      local agree = c.distance <= AGREE
      failed = failed or not agree
      print(("  first %d losses of %s and %s %s: %.1g apart"):format(LOSSES, name_of(reference), name_of(c),
        agree and "agree" or "DIFFER", c.distance))
    end
  end
  for _, t in ipairs(list) do
    for _, p in ipairs(list) do
      if t.side == "Tide" and p.side == "PyTorch" and t.median and p.median then
        summary[#summary + 1] = {
          workload = workload, threads = threads, tide = name_of(t), torch = name_of(p), median = t.median / p.median,
          best = t.max / p.max, peak = t.peak / p.peak, step = t.step and p.step and p.step > 0 and t.step / p.step or nil}
      end
    end
  end
  results[#results + 1] = {workload = workload, threads = threads, contestants = list}
end

local function summarize()
  if #summary == 0 then return end
  print "\nTide / PyTorch. rate: above 1 Tide is faster; memory: below 1 Tide takes less"
  print(("%-14s %7s  %-14s %-22s %9s %9s %8s %8s"):format("workload", "threads", "Tide", "against", "medians", "best", "peak mem",
    "step mem"))
  for _, s in ipairs(summary) do
    print(("%-14s %7d  %-14s %-22s %9.2f %9.2f %8.3f %8s"):format(s.workload, s.threads, s.tide, s.torch, s.median, s.best, s.peak,
      s.step and ("%.2f"):format(s.step) or "-"))
  end
end

local chosen, known = {}, {}
for _, r in ipairs(rows) do known[r[1]] = r end
for name in opt.workloads:gmatch "[^, ]+" do
  local base = known[name] and name or name:gsub("_captured$", "")   -- captured contestants run beside eager ones
  if not known[base] then
    io.stderr:write(("bench: there is no workload %s\n"):format(name))
    os.exit(2)
  end
  if not chosen[base] then chosen[#chosen + 1], chosen[base] = known[base], true end
end
if #chosen == 0 then chosen = rows end

if opt.limits ~= "" then
  starts()
  costs()
end
for text in opt.threads:gmatch "%d+" do
  local threads = math.tointeger(tonumber(text))
  local limits = limits_of(threads)
  for i, l in ipairs(limits) do
    if i == 1 then print(("\nthis machine, %d thread%s"):format(threads, threads > 1 and "s" or "")) end
    local name = l.library == "-" and l.name or l.name .. " " .. l.library
    if not known[l.name] then print(("  %-24s %10s %s"):format(name, number(l.value), l.unit)) end
  end
  for _, r in ipairs(chosen) do report(r[1], run(r[1], r[2], threads), threads, limits) end
end
summarize()
if opt.json ~= "" then
  for _, r in ipairs(results) do
    for _, c in ipairs(r.contestants) do c.from, c.to = nil, nil end
  end
  local f = assert(io.open(opt.json, "w"))
  f:write(tide.json.encode({rounds = opt.rounds, seconds = opt.seconds, results = results, summary = summary}), "\n")
  f:close()
end
if failed then
  print "\nFAILED: losses differ, or a contestant ended early"
  os.exit(1)
end
