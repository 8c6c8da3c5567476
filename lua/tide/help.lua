--- Help on everything that has a name: ops, layers, losses, optimizers and Lua functions.
local core = require "tide.core"
local doc = require "tide.doc"
local util = require "tide.util"

local M = {}

local WIDTH = 100

--- Breaks text into lines, each after an indent.
local function wrap(text, indent)
  local lines, line = {}, indent
  for word in text:gmatch "%S+" do
    if #line + #word + 1 > WIDTH and line ~= indent then
      lines[#lines + 1] = line
      line = indent
    end
    line = line == indent and indent .. word or line .. " " .. word
  end
  if line ~= indent then lines[#lines + 1] = line end
  return table.concat(lines, "\n")
end

--- Rows in columns: all but the last are as wide as they need.
local function columns(rows, indent)
  local wide = {}
  for _, row in ipairs(rows) do
    for i = 1, #row - 1 do wide[i] = math.max(wide[i] or 0, utf8.len(row[i]) or #row[i]) end
  end
  local lines = {}
  for _, row in ipairs(rows) do
    local cells = {}
    for i, cell in ipairs(row) do
      cells[i] = i < #row and cell .. (" "):rep(wide[i] - (utf8.len(cell) or #cell)) or cell
    end
    lines[#lines + 1] = (indent .. table.concat(cells, "  ")):gsub("%s+$", "")
  end
  return table.concat(lines, "\n")
end

local function option_rows(options)
  local rows = {}
  for i, o in ipairs(options) do
    local default = o.required and "required" or "= " .. tostring(o.default or "none")
    local limits = o.allowed and (" (" .. o.allowed:gsub("|", ", ") .. ")") or ""
    rows[i] = {o.name, o.type, default, (o.doc or "") .. limits .. (o.live and "; may change while training" or "")}
  end
  return rows
end

local marks = {index = "indices, from 1", mask = "a mask", optional = "may be absent", list = "a list of tensors",
               written = "changed in place", scalar = "a number"}

local function place_rows(places)
  local rows = {}
  for _, p in ipairs(places) do
    if not p.auxiliary then
      local notes = {}
      for _, mark in ipairs(util.keys(marks)) do if p[mark] then notes[#notes + 1] = marks[mark] end end
      rows[#rows + 1] = {p.name, table.concat(notes, "; ")}
    end
  end
  return rows
end

local kinds = {op = "op", layer = "layer", loss = "loss", optim = "optimizer"}

--- How a thing from the registry is called from Lua.
local function call_of(info)
  local usage = info.usage
  if info.kind == "op" then
    local args = {}
    for _, p in ipairs(info.inputs or {}) do args[#args + 1] = p.name end
    local options = usage:match "%((.*)%)$" or ""
    if options ~= "" then args[#args + 1] = options end
    return ("tide.%s(%s)"):format(info.name, table.concat(args, ", "))
  end
  if info.kind == "optim" then return "optim." .. usage:gsub("%(", "(params, {", 1):gsub("%)$", "})") end
  return "nn." .. usage
end

local function info_text(info)
  local parts = {("%s    %s"):format(call_of(info), kinds[info.kind] or info.kind), ""}
  parts[#parts + 1] = wrap(info.doc or "", "  ")
  if #info.options > 0 then
    parts[#parts + 1] = "\noptions"
    parts[#parts + 1] = columns(option_rows(info.options), "  ")
  end
  for _, side in ipairs {"inputs", "outputs"} do
    local rows = info[side] and place_rows(info[side]) or {}
    if #rows > 0 then
      parts[#parts + 1] = "\n" .. side
      parts[#parts + 1] = columns(rows, "  ")
    end
  end
  if info.kind == "op" and info.differentiable == false then parts[#parts + 1] = "\nIt has no gradient." end
  return table.concat(parts, "\n")
end

local function function_text(entry)
  local parts = {entry.full .. (entry.args or ""), ""}
  for _, line in ipairs(entry.text) do parts[#parts + 1] = (("  " .. line):gsub("%s+$", "")) end
  if #entry.params > 0 then
    parts[#parts + 1] = "\narguments"
    local rows = {}
    for i, p in ipairs(entry.params) do rows[i] = {p.name, p.type, p.doc} end
    parts[#parts + 1] = columns(rows, "  ")
  end
  if #entry.returns > 0 then
    parts[#parts + 1] = "\nreturns"
    for _, r in ipairs(entry.returns) do parts[#parts + 1] = "  " .. r.doc end
  end
  return table.concat(parts, "\n")
end

--- Names that could have been meant.
local function all_names()
  local names = {}
  for _, kind in ipairs {"layer", "loss", "optim", "op"} do
    for _, name in ipairs(core.layers(kind)) do names[#names + 1] = name end
  end
  for name in pairs(doc.index()) do names[#names + 1] = name end
  table.sort(names)
  return names
end

--- The help text of a name.
---@param name string   "Conv2d", "matmul", "nn.Module:to", "data.Loader"
---@return string? text, string? message
function M.text(name)
  local bare = name:gsub("^tide%.", "")
  local last = bare:match "([%w_]+)$" or bare
  local parts = {}
  local info = core.layer_info(last)
  if info then parts[#parts + 1] = info_text(info) end
  info = core.optim_info(last)
  if info then parts[#parts + 1] = info_text(info) end
  local only_lua = bare:find "[.:]" and doc.index()[bare]
  info = not only_lua and (core.op_info(bare) or core.op_info(last))
  if info then parts[#parts + 1] = info_text(info) end
  for _, entry in ipairs(doc.index()[bare] or doc.index()["tide." .. bare] or #parts == 0 and doc.index()[last] or {}) do
    parts[#parts + 1] = function_text(entry)
  end
  if #parts == 0 then return nil, ("there is no help on '%s'%s"):format(name, util.suggestion(last, all_names())) end
  return table.concat(parts, "\n\n")
end

--- What there is, by kind.
---@return string
function M.overview()
  local parts = {"tide.help \"NAME\" explains a layer, loss, optimizer, op or function.", ""}
  local groups = {{"layers", core.layers "layer"}, {"losses", core.layers "loss"}, {"optimizers", core.layers "optim"},
                  {"ops", core.layers "op"}}
  for _, file in ipairs(doc.files) do
    local names = {}
    for _, entry in ipairs(doc.functions(file)) do names[#names + 1] = entry.full end
    if #names > 0 then groups[#groups + 1] = {file.module, names} end
  end
  for _, g in ipairs(groups) do
    parts[#parts + 1] = g[1]
    parts[#parts + 1] = wrap(table.concat(g[2], "  "), "  ")
  end
  return table.concat(parts, "\n")
end

--- Prints what something is and takes: tide.help "Conv2d", tide.help(nn.Conv2d), or tide.help() for a list of everything.
---@param what string|table|nil
function M.help(what)
  if what == nil then return print(M.overview()) end
  local name = what
  if type(what) == "table" then name = rawget(what, "__name") or what.__name end
  util.expect(type(name) == "string", "help", "what", "a name, or a class such as nn.Conv2d", what)
  local text, message = M.text(name)
  if not text then util.fail("help: %s", message) end
  print(text)
end

return M
