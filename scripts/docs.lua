--- Write the reference (reference.md) and type files for an editor (tide.d.lua).    usage: tide docs.lua [DIRECTORY]
local tide = require "tide"
local core = require "tide.core"
local doc = require "tide.doc"

local opt = tide.options {}
local dir = opt[1] or "."

-- ---- the reference ----

local function cell(text) return (tostring(text or ""):gsub("|", "\\|")) end

local function options_table(options, out)
  if #options == 0 then return end
  out[#out + 1] = "| option | type | default | |"
  out[#out + 1] = "|---|---|---|---|"
  for _, o in ipairs(options) do
    local default = o.required and "required" or "`" .. cell(o.default) .. "`"
    local allowed = o.allowed and (" (`" .. cell(o.allowed) .. "`)") or ""
    out[#out + 1] = ("| `%s` | %s | %s | %s%s |"):format(o.name, o.type, default, cell(o.doc), allowed)
  end
  out[#out + 1] = ""
end

local function places(list)
  local names = {}
  for _, p in ipairs(list or {}) do
    if not p.auxiliary then
      local notes = {}
      if p.list then notes[#notes + 1] = "a list" end
      if p.index then notes[#notes + 1] = "indices" end
      if p.mask then notes[#notes + 1] = "mask" end
      if p.optional then notes[#notes + 1] = "optional" end
      names[#names + 1] = p.name .. (#notes > 0 and " (" .. table.concat(notes, ", ") .. ")" or "")
    end
  end
  return #names > 0 and table.concat(names, ", ") or "none"
end

local infos = {layer = core.layer_info, loss = core.layer_info, optim = core.optim_info, op = core.op_info}

local function registry_section(title, kind, out)
  out[#out + 1] = "## " .. title .. "\n"
  for _, name in ipairs(core.layers(kind)) do
    local info = infos[kind](name)
    out[#out + 1] = ("### %s\n"):format(name)
    out[#out + 1] = ("`%s`\n"):format(info.usage)
    out[#out + 1] = (info.doc or "") .. "\n"
    if info.inputs then out[#out + 1] = ("Inputs: %s. Outputs: %s.\n"):format(places(info.inputs), places(info.outputs)) end
    options_table(info.options, out)
  end
end

local function function_section(file, out)
  local functions = doc.functions(file)
  if #functions == 0 then return end
  out[#out + 1] = ("## %s\n"):format(file.module)
  out[#out + 1] = table.concat(doc.head(file), "\n") .. "\n"
  for _, f in ipairs(functions) do
    out[#out + 1] = ("### %s%s\n"):format(f.full, f.args or "")
    out[#out + 1] = table.concat(f.text, "\n") .. "\n"
    for _, p in ipairs(f.params) do out[#out + 1] = ("- `%s` %s  %s"):format(p.name, cell(p.type), p.doc) end
    for _, r in ipairs(f.returns) do out[#out + 1] = ("- returns %s"):format(cell(r.doc)) end
    out[#out + 1] = ""
  end
end

local function reference()
  local out = {"# Tide " .. tide.version .. ": reference\n", "Dimensions, indices and class labels count from 1.\n"}
  registry_section("Layers", "layer", out)
  registry_section("Losses", "loss", out)
  registry_section("Optimizers", "optim", out)
  registry_section("Ops: functions of tide and methods of tensors", "op", out)
  for _, file in ipairs(doc.files) do function_section(file, out) end
  return table.concat(out, "\n")
end

-- ---- types ----

local lua_types = {
  integer = "integer", number = "number", boolean = "boolean", string = "string", dtype = "string", axis = "integer",
  index = "integer", integers = "integer[]|integer", numbers = "number[]|number", axes = "integer[]|integer",
}
local keywords = {["end"] = true, ["repeat"] = true, ["and"] = true, ["or"] = true, ["not"] = true, ["in"] = true}

local function safe(name) return keywords[name] and name .. "_" or name end

--- "---@param" lines of options, and their names.
local function option_params(options, out, names)
  for _, o in ipairs(options) do
    local optional = o.required and "" or "?"
    local default = o.required and "" or " " .. tostring(o.default) .. ";"
    out[#out + 1] = ("---@param %s%s %s %s %s"):format(safe(o.name), optional, lua_types[o.type] or "any", default, o.doc or "")
    names[#names + 1] = safe(o.name)
  end
end

local function doc_lines(text, out)
  for line in ((text or "") .. "\n"):gmatch "([^\n]*)\n" do out[#out + 1] = "--- " .. line end
end

local function op_types(out)
  for _, name in ipairs(core.layers "op") do
    local info = core.op_info(name)
    local body, names = {}, {}
    doc_lines(info.doc, body)
    for _, p in ipairs(info.inputs or {}) do
      body[#body + 1] = ("---@param %s%s %s"):format(safe(p.name), p.optional and "?" or "",
                                                    p.list and "tide.Tensor[]" or "tide.Tensor|number")
      names[#names + 1] = safe(p.name)
    end
    option_params(info.options, body, names)
    local results = {}
    for _, p in ipairs(info.outputs or {}) do
      if not p.auxiliary then results[#results + 1] = p.list and "tide.Tensor[]" or "tide.Tensor" end
    end
    if #results > 0 then body[#body + 1] = "---@return " .. table.concat(results, ", ") end
    local text = table.concat(body, "\n")
    if name:match "^[%a_][%w_]*$" then
      out[#out + 1] = ("%s\nfunction tide.%s(%s) end\n"):format(text, name, table.concat(names, ", "))
      if #(info.inputs or {}) > 0 and not info.inputs[1].list then
        local method = text:gsub("%-%-%-@param [^\n]*\n", "", 1)
        out[#out + 1] = ("%s\nfunction Tensor:%s(%s) end\n"):format(method, name, table.concat(names, ", ", 2))
      end
    end
  end
end

local function module_types(out)
  for _, kind in ipairs {"layer", "loss"} do
    for _, name in ipairs(core.layers(kind)) do
      local info = core.layer_info(name)
      local body, names = {}, {}
      doc_lines(info.doc, body)
      option_params(info.options, body, names)
      body[#body + 1] = "---@return tide.nn.Module"
      if name:match "^[%a_][%w_]*$" then
        out[#out + 1] = ("%s\nfunction nn.%s(%s) end\n"):format(table.concat(body, "\n"), name, table.concat(names, ", "))
      end
    end
  end
  for _, name in ipairs(core.layers "optim") do
    local info = core.optim_info(name)
    local body = {}
    doc_lines(info.doc, body)
    local fields = {}
    for i, o in ipairs(info.options) do fields[i] = ("%s?: %s"):format(o.name, lua_types[o.type] or "any") end
    body[#body + 1] = "---@param params tide.Tensor[]|tide.nn.Module|table[]"
    body[#body + 1] = "---@param opts? {" .. table.concat(fields, ", ") .. "}"
    body[#body + 1] = "---@return tide.optim.Optimizer"
    out[#out + 1] = ("%s\nfunction optim.%s(params, opts) end\n"):format(table.concat(body, "\n"), name)
  end
end

local function types()
  local out = {"---@meta tide\n", "---@class tide\nlocal tide = {}\n", "---@class tide.Tensor\nlocal Tensor = {}\n",
               "---@class tide.nn\nlocal nn = {}\n", "---@class tide.optim\nlocal optim = {}\n"}
  op_types(out)
  module_types(out)
  out[#out + 1] = "return tide\n"
  return table.concat(out, "\n")
end

local function write(name, text)
  local path = dir .. "/" .. name
  local f = assert(io.open(path, "w"))
  assert(f:write(text))
  assert(f:close())
  print(("%s  %d lines"):format(path, select(2, text:gsub("\n", "\n"))))
end

if not os.execute(("mkdir -p '%s'"):format((dir:gsub("'", "'\\''")))) then os.exit(1) end
write("reference.md", reference())
write("tide.d.lua", types())
