--- Doc comments of Tide's own Lua files, for help and for the reference.
local M = {}

--- Which files there are, and what their functions are called from outside: M is the module's own table.
M.files = {
  {module = "tide.core", path = "core.d.lua", as = {M = "tide", Tensor = "Tensor"}},
  {module = "tide", as = {M = "tide"}},
  {module = "tide.options", as = {M = "tide"}, only = {options = true}},
  {module = "tide.profile", as = {M = "tide"}, only = {profile = true}},
  {module = "tide.grad", as = {M = "tide"}, only = {gradcheck = true, jacobian = true, hessian = true, jvp = true}},
  {module = "tide.io.safetensors", as = {M = "tide"}},
  {module = "tide.help", as = {M = "tide"}, only = {help = true}},
  {module = "tide.nn", as = {M = "nn"}},
  {module = "tide.nn.module", as = {Module = "nn.Module"}},
  {module = "tide.nn.containers", as = {Sequential = "nn.Sequential", ModuleList = "nn.ModuleList",
                                       ModuleDict = "nn.ModuleDict"}},
  {module = "tide.nn.transformer", as = {Layer = "nn.TransformerEncoderLayer"}},
  {module = "tide.nn.functional", as = {M = "nn.functional"}},
  {module = "tide.nn.weights", as = {M = "nn.init"}},
  {module = "tide.nn.utils", as = {M = "nn.utils"}},
  {module = "tide.optim", as = {M = "optim", Optimizer = "optim.Optimizer"}},
  {module = "tide.optim.schedule", as = {M = "optim.schedule"}},
  {module = "tide.optim.schedulers", as = {M = "optim", Scheduler = "optim.Scheduler"}},
  {module = "tide.data", as = {M = "data"}},
  {module = "tide.data.dataset", as = {M = "data"}, only = {TensorDataset = true, subset = true, random_split = true}},
  {module = "tide.data.loader", as = {M = "data", Loader = "data.Loader"}},
  {module = "tide.data.transforms", as = {M = "data.transforms"}},
  {module = "tide.metrics", as = {M = "metrics", Mean = "metrics.Mean", Accuracy = "metrics.Accuracy", TopK = "metrics.TopK",
                                  ConfusionMatrix = "metrics.ConfusionMatrix"}},
  {module = "tide.progress", as = {M = "progress", Bar = "progress.Bar"}},
  {module = "tide.logger", as = {M = "logger", Writer = "logger.Writer"}},
  {module = "tide.train", as = {M = "train"}},
  {module = "tide.plot", as = {M = "plot"}},
  {module = "tide.io.json", as = {M = "json"}},
  {module = "tide.check", as = {M = "check"}},
}

--- Takes a block of comment lines apart.
local function parse_block(lines)
  local block = {text = {}, params = {}, returns = {}, fields = {}}
  for _, line in ipairs(lines) do
    local body = line:match "^%s*%-%-%- ?(.*)$"
    local tag, rest = body:match "^@(%w+)%s*(.*)$"
    if tag == "param" then
      local name, kind, doc = rest:match "^(%S+)%s+(%S+)%s*(.*)$"
      if rest:match "^%S+%s+fun%(" then name, kind, doc = rest:match "^(%S+)%s+(fun%b():?%s?[%w_.|%[%]?]*)%s*(.*)$" end
      if rest:match "^%S+%s+%(fun" then name, kind, doc = rest:match "^(%S+)%s+(%b()%??)%s*(.*)$" end
      block.params[#block.params + 1] = {name = name or rest, type = kind or "any", doc = doc or ""}
      block.last = block.params
    elseif tag == "return" then
      block.returns[#block.returns + 1] = {doc = rest}
      block.last = block.returns
    elseif tag == "class" then
      block.class = rest
    elseif tag == "field" then
      block.fields[#block.fields + 1] = rest
    elseif not tag then
      local last = block.last
      if last and body:match "^%-?%s%s+" then                -- goes on with the line before
        last[#last].doc = last[#last].doc .. " " .. body:gsub("^%-?%s+", "")
      else
        block.text[#block.text + 1] = body
      end
    end
  end
  while block.text[1] == "" do table.remove(block.text, 1) end
  while block.text[#block.text] == "" do table.remove(block.text) end
  return block
end

--- What the line after a comment defines: owner, ".", or ":", name, arguments.
local function defined(line)
  local owner, sep, name, args = line:match "^function ([%w_]+)([.:])([%w_]+)(%b())"
  if owner then return owner, sep, name, args end
  owner, name = line:match "^([%w_]+)%.([%w_]+)%s*="
  if owner then return owner, ".", name, nil end
end

local function source_of(file)
  local path
  if file.path then                                      -- beside this file
    path = package.searchpath("tide.doc", package.path):gsub("[^/]*$", "") .. file.path
  else
    path = package.searchpath(file.module, package.path)
  end
  local f = path and io.open(path, "r")
  if not f then return "" end
  local text = f:read "a"
  f:close()
  return text
end

--- The documented functions of one file, in their order.
---@param file table   an entry of M.files
---@return table[]     name, owner, sep, args, doc (lines), params, returns
function M.functions(file)
  local found, block = {}, {}
  for line in source_of(file):gmatch "([^\n]*)\n" do
    if line:match "^%-%-%-" then
      block[#block + 1] = line
    else
      local owner, sep, name, args = defined(line)
      local as = owner and file.as[owner]
      if as and #block > 0 and not name:match "^_" and (not file.only or owner ~= "M" or file.only[name]) then
        local entry = parse_block(block)
        entry.owner, entry.sep, entry.name, entry.args = as, sep, name, args
        entry.full = as .. sep .. name
        found[#found + 1] = entry
      end
      block = {}
    end
  end
  return found
end

--- The comment at the head of a file, as lines.
---@param file table
---@return string[]
function M.head(file)
  local lines = {}
  for line in source_of(file):gmatch "([^\n]*)\n" do
    if not line:match "^%-%-%-" then break end
    lines[#lines + 1] = line
  end
  return parse_block(lines).text
end

local index

--- All documented functions by full name ("nn.Module:to") and by last name.
---@return table<string, table[]>
function M.index()
  if index then return index end
  index = {}
  for _, file in ipairs(M.files) do
    for _, entry in ipairs(M.functions(file)) do
      for _, key in ipairs {entry.full, entry.full:gsub(":", "."), entry.name} do
        if type(key) == "string" then
          index[key] = index[key] or {}
          local known = false
          for _, e in ipairs(index[key]) do known = known or e == entry end
          if not known then table.insert(index[key], entry) end
        end
      end
    end
  end
  return index
end

return M
