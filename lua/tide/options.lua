--- Command-line options of a script, from a table of defaults: `tide train.lua --epochs 10 --device cuda`.
local util = require "tide.util"

local M = {}

local function kind_of(default)
  if type(default) == "boolean" then return "boolean" end
  if math.type(default) == "integer" then return "integer" end
  return type(default)
end

local function shown(value)
  return type(value) == "string" and (value == "" and '""' or value) or tostring(value)
end

--- The text of --help.
local function usage(script, defaults)
  local lines, wide = {("usage: %s [options]"):format(script), ""}, 6
  local names = util.keys(defaults)
  for _, name in ipairs(names) do wide = math.max(wide, #name) end
  for _, name in ipairs(names) do
    local flag = name:gsub("_", "-")
    lines[#lines + 1] = ("  --%-" .. wide .. "s  %-8s default %s"):format(flag, kind_of(defaults[name]), shown(defaults[name]))
  end
  lines[#lines + 1] = ("  --%-" .. wide .. "s  shows this"):format "help"
  return table.concat(lines, "\n")
end

local truth = {["true"] = true, ["false"] = false, yes = true, no = false, on = true, off = false, ["1"] = true, ["0"] = false}

--- A value from its text, or nil and what was expected.
local function parse(kind, text)
  if kind == "string" then return text end
  if kind == "boolean" then
    if truth[text] == nil then return nil, "true or false" end
    return truth[text]
  end
  local n = tonumber(text)
  if kind == "integer" then
    n = n and math.tointeger(n)
    if not n then return nil, "an integer" end
  elseif not n or n ~= n then
    return nil, "a number"
  end
  return kind == "integer" and n or n + 0.0
end

--- Takes one "--name", "--name=value" or "--no-name" from args at i. Returns the place of the last one used, or nil, message.
local function take(args, i, defaults, into)
  local text, inline = args[i]:match "^%-%-([^=]+)=?(.*)$"
  local has_inline = args[i]:find("=", 1, true) ~= nil
  if not text then return nil, ("there is no option '%s'"):format(args[i]) end
  local name = text:gsub("-", "_")
  if defaults[name] == nil and name:match "^no_" and defaults[name:sub(4)] ~= nil then
    if type(defaults[name:sub(4)]) ~= "boolean" or has_inline then
      return nil, ("there is no option '--%s'"):format(text)
    end
    into[name:sub(4)] = false
    return i
  end
  if defaults[name] == nil then
    return nil, ("there is no option '--%s'%s"):format(text, util.suggestion(name, util.keys(defaults)):gsub("'(.*)'", "'--%1'"))
  end
  local kind = kind_of(defaults[name])
  if kind == "boolean" and not has_inline then
    into[name] = true
    return i
  end
  local given = inline
  if not has_inline then
    i = i + 1
    given = args[i]
    if given == nil then return nil, ("--%s: expected a value"):format(text) end
  end
  local value, expected = parse(kind, given)
  if value == nil then return nil, ("--%s: expected %s, got '%s'"):format(text, expected, given) end
  into[name] = value
  return i
end

--- Reads arguments by a table of defaults.
---@param defaults table<string, any>
---@param args string[]
---@return table? options   and "help" or a message in its place where there are none
---@return string? message
function M.parse(defaults, args)
  local options = {}
  for name, value in pairs(defaults) do options[name] = value end
  local i, only_words = 1, false
  while args[i] ~= nil do
    local a = args[i]
    if only_words or a:sub(1, 1) ~= "-" or a == "-" then
      options[#options + 1] = a
    elseif a == "--" then
      only_words = true
    elseif (a == "--help" or a == "-h") and defaults.help == nil then
      return nil, "help"
    else
      local last, message = take(args, i, defaults, options)
      if not last then return nil, message end
      i = last
    end
    i = i + 1
  end
  return options
end

--- Options of the running script: defaults, changed by its arguments. `--help` prints them and ends the script; a wrong
--- argument is reported and ends it with status 2. Words that are no options are in [1], [2], …
---
---     local opt = tide.options {device = "cpu", epochs = 5, lr = 1e-3}
---@generic T: table
---@param defaults T   the type of each default is the type of the option
---@return T
function M.options(defaults)
  util.expect(type(defaults) == "table", "options", "defaults", "a table", defaults)
  for name, value in pairs(defaults) do
    util.expect(type(name) == "string", "options", "defaults", "names as keys", name)
    util.expect(type(value) ~= "table" and type(value) ~= "function", "options", name, "a string, a number or a boolean", value)
  end
  local args = rawget(_G, "arg") or {}
  local script = (args[0] or "script"):match "[^/]+$" or "script"
  local options, message = M.parse(defaults, args)
  if options then return options end
  if message == "help" then
    print(usage(script, defaults))
    os.exit(0, true)
  end
  io.stderr:write(script, ": ", message, " (", script, " --help lists the options)\n")
  os.exit(2, true)
end

M.usage = usage
return M
