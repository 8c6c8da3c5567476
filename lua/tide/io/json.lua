--- JSON, as strictly as RFC 8259 has it: what safetensors headers and logs need. Objects become tables, arrays become lists,
--- null becomes json.null; a key that occurs twice, a number out of range or text after the value is an error.
---@class tide.io.json
local M = {}

--- Stands for null.
M.null = setmetatable({}, {__tostring = function() return "null" end, __name = "json.null"})

local MAX_DEPTH = 64

local function bad(pos, what) error({json = ("%s at byte %d"):format(what, pos)}, 0) end

local escapes = {['"'] = '"', ["\\"] = "\\", ["/"] = "/", b = "\b", f = "\f", n = "\n", r = "\r", t = "\t"}

--- The code point of \uXXXX at pos, which is behind the u.
local function hex4(s, pos)
  local h = s:match("^%x%x%x%x", pos)
  if not h then bad(pos, "expected four hexadecimal digits") end
  return tonumber(h, 16)
end

local function unicode(s, pos)
  local c = hex4(s, pos)
  pos = pos + 4
  if c >= 0xD800 and c <= 0xDBFF then
    if s:sub(pos, pos + 1) ~= "\\u" then bad(pos, "expected the second half of a surrogate pair") end
    local low = hex4(s, pos + 2)
    if low < 0xDC00 or low > 0xDFFF then bad(pos, "expected the second half of a surrogate pair") end
    return utf8.char(0x10000 + (c - 0xD800) * 0x400 + low - 0xDC00), pos + 6
  end
  if c >= 0xDC00 and c <= 0xDFFF then bad(pos, "half of a surrogate pair") end
  return utf8.char(c), pos
end

--- The string whose opening quote is at pos.
local function parse_string(s, pos)
  local parts, from = {}, pos + 1
  while true do
    local at = s:find('[%c"\\]', from)
    if not at then bad(pos, "a string without an end") end
    parts[#parts + 1] = s:sub(from, at - 1)
    local c = s:sub(at, at)
    if c == '"' then
      local text = table.concat(parts)
      if not utf8.len(text) then bad(pos, "a string that is not UTF-8") end
      return text, at + 1
    elseif c ~= "\\" then
      if c == "\127" then                                -- a control character for Lua, not for JSON
        parts[#parts + 1] = c
        from = at + 1
      else
        bad(at, "a control character in a string")
      end
    else
      local e = s:sub(at + 1, at + 1)
      if e == "u" then
        parts[#parts + 1], from = unicode(s, at + 2)
      else
        if not escapes[e] then bad(at, "an unknown escape") end
        parts[#parts + 1], from = escapes[e], at + 2
      end
    end
  end
end

local function parse_number(s, pos)
  local text = s:match("^-?%d+%.?%d*[eE]?[+-]?%d*", pos)
  local whole = text and text:match "^%-?(%d+)"
  local fits = text and (text:match "^%-?%d+$" or text:match "^%-?%d+%.%d+$" or text:match "^%-?%d+[eE][+-]?%d+$"
                         or text:match "^%-?%d+%.%d+[eE][+-]?%d+$")
  if not fits or (#whole > 1 and whole:sub(1, 1) == "0") then bad(pos, "expected a value") end
  local n = tonumber(text)
  if n ~= n or n == math.huge or n == -math.huge then bad(pos, "a number out of range") end
  return n, pos + #text
end

local function skip(s, pos) return s:match("^[ \t\r\n]*()", pos) end

local parse_value

local function parse_object(s, pos, depth)
  local t = {}
  pos = skip(s, pos + 1)
  if s:sub(pos, pos) == "}" then return t, pos + 1 end
  while true do
    if s:sub(pos, pos) ~= '"' then bad(pos, "expected a key") end
    local key, after = parse_string(s, pos)
    if t[key] ~= nil then bad(pos, ("key '%s' a second time"):format(key)) end
    pos = skip(s, after)
    if s:sub(pos, pos) ~= ":" then bad(pos, "expected ':'") end
    t[key], pos = parse_value(s, skip(s, pos + 1), depth)
    pos = skip(s, pos)
    local c = s:sub(pos, pos)
    if c == "}" then return t, pos + 1 end
    if c ~= "," then bad(pos, "expected ',' or '}'") end
    pos = skip(s, pos + 1)
  end
end

local function parse_array(s, pos, depth)
  local t, n = {}, 0
  pos = skip(s, pos + 1)
  if s:sub(pos, pos) == "]" then return t, pos + 1 end
  while true do
    n = n + 1
    t[n], pos = parse_value(s, pos, depth)
    pos = skip(s, pos)
    local c = s:sub(pos, pos)
    if c == "]" then return t, pos + 1 end
    if c ~= "," then bad(pos, "expected ',' or ']'") end
    pos = skip(s, pos + 1)
  end
end

function parse_value(s, pos, depth)
  if depth > MAX_DEPTH then bad(pos, ("more than %d levels"):format(MAX_DEPTH)) end
  local c = s:sub(pos, pos)
  if c == "{" then return parse_object(s, pos, depth + 1) end
  if c == "[" then return parse_array(s, pos, depth + 1) end
  if c == '"' then return parse_string(s, pos) end
  if s:sub(pos, pos + 3) == "true" then return true, pos + 4 end
  if s:sub(pos, pos + 4) == "false" then return false, pos + 5 end
  if s:sub(pos, pos + 3) == "null" then return M.null, pos + 4 end
  return parse_number(s, pos)
end

--- Reads one JSON value.
---@param text string
---@return any value     nil where the text is no JSON
---@return string? message
function M.decode(text)
  local ok, value, pos = pcall(parse_value, text, skip(text, 1), 0)
  if ok then
    pos = skip(text, pos)
    if pos <= #text then return nil, ("text after the value at byte %d"):format(pos) end
    return value
  end
  if type(value) == "table" and value.json then return nil, value.json end
  error(value, 0)
end

local function encode_string(s)
  return '"' .. s:gsub('[%c"\\]', function(c)
    local short = {['"'] = '\\"', ["\\"] = "\\\\", ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t"}
    return short[c] or ("\\u%04x"):format(c:byte())
  end) .. '"'
end

local function encode_number(x)
  if math.type(x) == "integer" then return ("%d"):format(x) end
  if x ~= x or x == math.huge or x == -math.huge then return "null" end
  local s = ("%.17g"):format(x)
  local short = ("%.15g"):format(x)
  return tonumber(short) == x and short or s
end

local encode_value

local function encode_table(t, depth)
  if depth > MAX_DEPTH then error("json: more than " .. MAX_DEPTH .. " levels", 0) end
  local parts = {}
  if #t > 0 or next(t) == nil and getmetatable(t) == M.list then
    for i, v in ipairs(t) do parts[i] = encode_value(v, depth + 1) end
    return "[" .. table.concat(parts, ",") .. "]"
  end
  local keys = {}
  for k in pairs(t) do
    if type(k) ~= "string" then error("json: expected strings as keys, got " .. type(k), 0) end
    keys[#keys + 1] = k
  end
  table.sort(keys)
  for i, k in ipairs(keys) do parts[i] = encode_string(k) .. ":" .. encode_value(t[k], depth + 1) end
  return "{" .. table.concat(parts, ",") .. "}"
end

function encode_value(v, depth)
  local t = type(v)
  if t == "string" then return encode_string(v) end
  if t == "number" then return encode_number(v) end
  if t == "boolean" then return tostring(v) end
  if v == nil or v == M.null then return "null" end
  if t == "table" then return encode_table(v, depth) end
  error(("json: cannot encode a %s"):format(t), 0)
end

--- Metatable that marks an empty table as a list.
M.list = {}

--- Writes a value as JSON: tables with [1] as arrays, others as objects with sorted keys; NaN and infinities as null.
---@param value any
---@return string
function M.encode(value) return encode_value(value, 0) end

return M
