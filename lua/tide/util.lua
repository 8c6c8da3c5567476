--- What the other modules share: errors that point at the script, descriptions for messages, near names.
local core = require "tide.core"

---@class tide.util
local M = {}

--- Raises a sentence that points at the script's line: the first one outside Tide's own files. It is one line: control
--- characters, which names in a damaged file may have, are shown by their numbers.
---@param fmt string   as for string.format
---@param ... any
function M.fail(fmt, ...)
  local message = select("#", ...) > 0 and fmt:format(...) or fmt
  core.error((message:gsub("%c", function(c) return ("\\%d"):format(c:byte()) end)))
  error(fmt, 2)                                          -- not reached: core.error raises
end

--- "f32 (2, 3)", "a table", "the string 'abc'": what a value is, for messages.
---@param x any
---@return string
function M.describe(x)
  if core.is_tensor(x) then
    local dims = {}
    for i, n in ipairs(x:shape()) do dims[i] = tostring(n) end
    return ("%s (%s)"):format(x.dtype, table.concat(dims, ", "))
  end
  local t = type(x)
  if t == "string" then return #x > 40 and "a string" or ("the string '%s'"):format(x) end
  if t == "number" or t == "boolean" or t == "nil" then return tostring(x) end
  if t == "table" and rawget(x, "__name") and rawget(x, "__index") then return ("the class %s"):format(x.__name) end
  local mt = getmetatable(x)
  local name = type(mt) == "table" and rawget(mt, "__name")
  return type(name) == "string" and "a " .. name or "a " .. t
end

--- Raises unless `ok`.
---@param ok any
---@param who string       what begins the message
---@param what string      the argument
---@param expected string  what should have come
---@param got any          what came
function M.expect(ok, who, what, expected, got)
  if not ok then M.fail("%s: %s: expected %s, got %s", who, what, expected, M.describe(got)) end
end

--- An integer of at least `least`, else an error.
---@param who string
---@param what string
---@param x any
---@param least integer
---@return integer
function M.integer(who, what, x, least)
  local n = math.type(x) == "float" and math.tointeger(x) or x
  M.expect(math.type(n) == "integer" and n >= least, who, what, "an integer >= " .. least, x)
  return n
end

--- A finite number, else an error.
---@param who string
---@param what string
---@param x any
---@return number
function M.number(who, what, x)
  M.expect(type(x) == "number" and x == x and x ~= math.huge and x ~= -math.huge, who, what, "a number", x)
  return x
end

--- Checks that a table of named options has no unknown name, and fills in defaults.
---@param who string
---@param given table?
---@param defaults table   name → default; `false` stands for none
---@return table
function M.named(who, given, defaults)
  M.expect(given == nil or type(given) == "table", who, "options", "a table", given)
  local o = {}
  for name, value in pairs(defaults) do o[name] = value end
  for name, value in pairs(given or {}) do
    if defaults[name] == nil then
      M.fail("%s: there is no option '%s'%s", who, tostring(name), M.suggestion(tostring(name), M.keys(defaults)))
    end
    o[name] = value
  end
  return o
end

--- The keys of a table as sorted strings.
---@param t table
---@return string[]
function M.keys(t)
  local keys = {}
  for k in pairs(t) do if type(k) == "string" then keys[#keys + 1] = k end end
  table.sort(keys)
  return keys
end

--- How many letters must be put in, taken out or changed to make b of a (Levenshtein 1966).
local function distance(a, b)
  local row = {}
  for j = 0, #b do row[j] = j end
  for i = 1, #a do
    local diagonal = row[0]
    row[0] = i
    for j = 1, #b do
      local cost = a:byte(i) == b:byte(j) and 0 or 1
      local best = math.min(row[j] + 1, row[j - 1] + 1, diagonal + cost)
      diagonal, row[j] = row[j], best
    end
  end
  return row[#b]
end

--- The name that is most like `name`, or nil where none is near.
---@param name string
---@param names string[]
---@return string?
function M.nearest(name, names)
  local best, least = nil, math.max(2, #name // 3) + 1
  local low = name:lower():gsub("[_-]", "")
  for _, other in ipairs(names) do
    local d = distance(low, (other:lower():gsub("[_-]", "")))
    if d < least then best, least = other, d end
  end
  return best
end

--- "; did you mean 'Conv2d'?", or "" where nothing is near.
---@param name string
---@param names string[]
---@return string
function M.suggestion(name, names)
  local near = M.nearest(name, names)
  return near and ("; did you mean '%s'?"):format(near) or ""
end

--- 1663370 → "1,663,370"
---@param n integer
---@return string
function M.thousands(n)
  local s = ("%d"):format(n)
  local sign, digits = s:match "^(-?)(%d+)$"
  return sign .. digits:reverse():gsub("(%d%d%d)", "%1,"):reverse():gsub("^,", "")
end

--- A table whose missing fields are modules, required when they are first named.
---@param fields table<string, string>   field → module
---@param t table
---@return table t
function M.lazy(fields, t)
  return setmetatable(t, {__index = function(self, key)
    local module = fields[key]
    if not module then return nil end
    local value = require(module)
    rawset(self, key, value)
    return value
  end})
end

--- Runs f(...) with no gradient recorded and returns its results.
M.no_grad = core.no_grad

return M
