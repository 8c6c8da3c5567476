--- The interpreter's commands: tide plugins, tide devices, tide help NAME, tide check FILE.
local core = require "tide.core"
local util = require "tide.util"

local M = {}

--- 8589934592 → "8.0 GiB"
local function bytes_text(n)
  local units, i = {"B", "KiB", "MiB", "GiB", "TiB"}, 1
  while n >= 1024 and i < #units do n, i = n / 1024, i + 1 end
  return (i == 1 and "%d %s" or "%.1f %s"):format(n, units[i])
end

--- Rows in columns; the last is as long as it is.
local function print_columns(rows)
  local wide = {}
  for _, row in ipairs(rows) do
    for i = 1, #row - 1 do wide[i] = math.max(wide[i] or 0, #row[i]) end
  end
  for _, row in ipairs(rows) do
    local cells = {}
    for i, cell in ipairs(row) do cells[i] = i < #row and cell .. (" "):rep(wide[i] - #cell) or cell end
    print((table.concat(cells, "  "):gsub("%s+$", "")))
  end
end

local commands = {}

--- tide plugins: what was found where, and what it provides.
function commands.plugins()
  local rows = {{"plugin", "version", "state", "provides"}}
  local list = core.plugins()
  table.sort(list, function(a, b) return (a.name or a.path) < (b.name or b.path) end)
  for _, p in ipairs(list) do
    local what = p.state == "refused" and ("%s: %s"):format(p.path, p.why or "") or p.provides or ""
    rows[#rows + 1] = {p.name or p.path:match "[^/]+$" or p.path, p.version or "", p.state, what}
  end
  print_columns(rows)
  print("\nlooked for in")
  for _, dir in ipairs(core.plugin_dirs()) do print("  " .. dir) end
end

--- tide devices: what there is, and why something is not.
function commands.devices()
  local rows = {{"device", "memory", "description"}}
  for _, d in ipairs(core.devices()) do
    local memory = d.memory and d.memory > 0 and bytes_text(d.memory) or ""
    rows[#rows + 1] = {d.name, memory, d.why and "not available: " .. d.why or d.description or ""}
  end
  print_columns(rows)
  print("\nthreads " .. core.get_num_threads())
end

--- tide help [NAME]
function commands.help(args)
  local help = require "tide.help"
  if not args[1] then
    print(help.overview())
    return
  end
  local text, message = help.text(args[1])
  if text then
    print(text)
    return
  end
  io.stderr:write("tide help: ", message, "\n")
  return 1
end

local function quoted(s) return "'" .. s:gsub("'", "'\\''") .. "'" end

--- The program that runs this.
local function own_program()
  local p = io.popen('readlink "/proc/$PPID/exe"', "r")
  local path = p and p:read "l"
  if p then p:close() end
  return path or "tide"
end

--- Runs the suite in a process of its own: a plugin's mistake must not end this one.
local function check_outside(target)
  local code = ("package.path, package.cpath = %q, %q; os.exit(require 'tide.cli'.run('check', {'--inside', %q}), true)"):format(
    package.path, package.cpath, target)
  local ok, how, status = os.execute(("%s -e %s"):format(quoted(own_program()), quoted(code)))
  if ok then return 0 end
  if how == "signal" or status and status > 128 then
    local signal = how == "signal" and status or status - 128
    io.stderr:write(("tide check: %s: the process was ended by signal %d\n"):format(target, signal))
  end
  return 1
end

--- tide check FILE|NAME: the conformance suite on what a plugin provides, or on one op, layer, loss or optimizer.
function commands.check(args)
  local inside = args[1] == "--inside"
  local target = inside and args[2] or args[1]
  if not target then
    io.stderr:write "usage: tide check FILE|NAME|all\n"
    return 2
  end
  if not inside then return check_outside(target) end
  local ok, report = pcall(require "tide.check".target, target)
  if not ok then
    io.stderr:write(("tide check: %s\n"):format((tostring(report):gsub("^%(command line%):%d+: ", ""):gsub("^check: ", ""))))
    return 1
  end
  print(tostring(report))
  return #report.failed == 0 and 0 or 1
end

--- Runs a command.
---@param name string
---@param args string[]
---@return integer status   0: fine
function M.run(name, args)
  local command = commands[name]
  if not command then
    io.stderr:write(("tide: there is no command '%s'%s\n"):format(name, util.suggestion(name, util.keys(commands))))
    return 2
  end
  return command(args or {}) or 0
end

return M
